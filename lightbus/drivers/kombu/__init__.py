"""Transports over kombu: RabbitMQ on its fast path (`amqp`), every other kombu transport through its channels."""
