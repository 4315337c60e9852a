// Fire an event: node fire.js amqp://localhost shop.orders.placed 1.0 '{"order": 7}'
const amqp = require('amqplib');
const { randomUUID } = require('crypto');

async function fire(url, name, version, fields) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertExchange('lightbus.events', 'topic', { durable: true });
  const id = randomUUID().replaceAll('-', '');
  const type = `${name}.v${version.split('.')[0]}`;
  channel.publish('lightbus.events', type, Buffer.from(JSON.stringify(fields)), {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    persistent: true,
    messageId: id,
    correlationId: id, // the first message of a conversation gives it its id
    headers: {
      cloudEvents_specversion: '1.0',
      cloudEvents_id: id,
      cloudEvents_source: '/web',
      cloudEvents_type: type,
      cloudEvents_time: new Date().toISOString(),
      cloudEvents_correlationid: id,
      lightbus_kind: 'event',
      lightbus_version: version,
    },
  });
  await channel.waitForConfirms(); // only now does the broker have it
  await connection.close();
  console.log(id);
}

const [url, name, version, fields] = process.argv.slice(2);
fire(url, name, version, JSON.parse(fields));
