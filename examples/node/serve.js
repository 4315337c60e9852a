// Serve an API, support.tickets 1.0: node serve.js amqp://localhost
const amqp = require('amqplib');

class NotFound extends Error {} // declared by the API, with field `id`
const calls = {
  'support.tickets.get.v1': ({ id }) => {
    if (id === 404) throw Object.assign(new NotFound(), { fields: { id } });
    if (id < 0) throw new RangeError(`no ticket ${id}`);
    return `ticket ${id}`;
  },
};

function answer(headers, content) {
  const call = calls[headers.cloudEvents_type], [, minor] = headers.lightbus_version.split('.');
  if (new Date(headers.lightbus_deadline) <= new Date()) return ['error', { type: 'expired', title: 'too late' }];
  if (!call) return ['error', { type: 'rejected', title: `no call ${headers.cloudEvents_type} here` }];
  if (minor > 0) return ['error', { type: 'rejected', title: 'this is 1.0' }];
  try {
    return ['result', call(JSON.parse(content.toString()))];
  } catch (error) {
    const title = error.constructor.name;
    if (error instanceof NotFound) return ['error', { type: `api:${title}`, title, fields: error.fields }];
    return ['error', { type: `error:${title}`, title, detail: String(error) }];
  }
}

async function serve(url, queue = 'lightbus.rpc.support.tickets.v1') {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-expires': 30000 } });
  await channel.consume(queue, (message) => {
    channel.ack(message); // first: a call runs at most once
    const { headers, correlationId, replyTo } = message.properties, [kind, value] = answer(headers, message.content);
    const contentType = kind === 'error' ? 'application/problem+json' : 'application/json';
    const properties = { contentType, contentEncoding: 'utf-8', correlationId, headers: { lightbus_kind: kind } };
    if (!/^(lightbus\.reply\.|amq\.)/.test(replyTo)) return; // nobody makes us write into a work queue
    channel.sendToQueue(replyTo, Buffer.from(JSON.stringify(value)), properties);
  });
  console.log('serving');
}
serve(process.argv[2]);
