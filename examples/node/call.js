// Call an API: node call.js amqp://localhost support.tickets get 1.0 '{"id": 7}'
const amqp = require('amqplib');
const { randomUUID } = require('crypto');

async function call(url, api, name, version, fields, milliseconds = 5000) {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  const id = randomUUID().replaceAll('-', '');
  const [major] = version.split('.');
  const { queue: replyTo } = await channel.assertQueue(`lightbus.reply.web.${id}`, {
    exclusive: true, autoDelete: true, durable: false,
  });
  const answer = await new Promise((resolve) => {
    channel.on('return', () => resolve({ error: { type: 'not served' } }));
    setTimeout(() => resolve({ error: { type: 'timeout' } }), milliseconds).unref();
    channel.consume(replyTo, ({ content, properties: { headers, correlationId } }) => {
      if (correlationId !== id) return;
      const value = JSON.parse(content.toString());
      resolve(headers.lightbus_kind === 'error' ? { error: value } : { result: value });
    }, { noAck: true });
    channel.sendToQueue(`lightbus.rpc.${api}.v${major}`, Buffer.from(JSON.stringify(fields)), {
      mandatory: true, persistent: false, expiration: String(milliseconds),
      contentType: 'application/json', contentEncoding: 'utf-8', messageId: id, correlationId: id, replyTo,
      headers: {
        cloudEvents_specversion: '1.0', cloudEvents_id: id, cloudEvents_source: '/web',
        cloudEvents_type: `${api}.${name}.v${major}`, cloudEvents_time: new Date().toISOString(),
        cloudEvents_correlationid: id, lightbus_kind: 'call', lightbus_version: version,
        lightbus_deadline: new Date(Date.now() + milliseconds).toISOString(),
      },
    });
  });
  await connection.close();
  console.log(JSON.stringify(answer));
}

const [url, api, name, version, fields] = process.argv.slice(2);
call(url, api, name, version, JSON.parse(fields));
