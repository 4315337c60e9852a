// Listen to events: node listen.js amqp://localhost support.on.greet shop.orders.placed.v1
const amqp = require('amqplib');

function handle(event, headers) {
  if (event.order < 0) throw new RangeError(`no order ${event.order}`);
  console.log(JSON.stringify({ type: headers.cloudEvents_type, from: headers.cloudEvents_source, event }));
}

async function listen(url, queue, ...keys) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertExchange('lightbus.events', 'topic', { durable: true });
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.assertQueue('lightbus.dead', { durable: true });
  for (const key of keys) await channel.bindQueue(queue, 'lightbus.events', key);
  await channel.prefetch(10);

  await channel.consume(queue, async (message) => {
    try {
      handle(JSON.parse(message.content.toString()), message.properties.headers);
    } catch (error) { // parked with its reason; only then is the message gone from our queue
      const { expiration, ...properties } = message.properties;
      Object.assign(properties.headers, {
        lightbus_dead_reason: 'failed',
        lightbus_dead_error: String(error).slice(0, 2000),
        lightbus_dead_queue: queue,
        lightbus_dead_attempts: 1,
        lightbus_dead_at: new Date().toISOString(),
      });
      channel.sendToQueue('lightbus.dead', message.content, { ...properties, persistent: true });
      await channel.waitForConfirms();
    }
    channel.ack(message);
  });
  console.log('listening');
}

listen(...process.argv.slice(2));
