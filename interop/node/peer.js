// The Node program of interop/programs. It does what interop/cpp/peer.cc does of Greet, Echo and Fail, with stock grpc-js and
// without any security, at a UNIX socket: shared-altsd listen --http or connect --grpc is at the other end of that.
//
//   peer.js server PATH
//   peer.js client PATH
'use strict';

const crypto = require('crypto');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');

// StringValue and BytesValue have one field, of bytes with their length before them.
function encode(bytes) {
  if (bytes.length === 0) return bytes;
  const head = [0x0a];
  let n = bytes.length;
  for (; n >= 0x80; n >>>= 7) head.push((n & 0x7f) | 0x80);
  head.push(n);
  return Buffer.concat([Buffer.from(head), bytes]);
}

function decode(message) {
  if (message.length === 0) return message;
  let at = 1;
  while (message[at] & 0x80) at++;
  return message.subarray(at + 1);
}

// grpc-js takes a message that is false, as '' is, for none.
const text = {encode: (m) => encode(Buffer.from(m.value)), decode: (b) => ({value: decode(b).toString()})};
const bytes = {encode: (m) => encode(m.value), decode: (b) => ({value: decode(b)})};

function method(name, codec, stream) {
  return {path: '/sharedaltsd.interop.Interop/' + name, requestStream: stream, responseStream: stream,
    requestSerialize: codec.encode, requestDeserialize: codec.decode,
    responseSerialize: codec.encode, responseDeserialize: codec.decode};
}

const service = {
  Greet: method('Greet', text, false),
  Fail: method('Fail', text, false),
  Echo: method('Echo', bytes, true),
};

const options = {'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1};

function serve(path) {
  const header = (call, name) => call.metadata.get(name).join(',') || '-';
  const server = new grpc.Server(options);
  server.addService(service, {
    Greet: (call, done) => done(null, {value: header(call, 'altsd-peer') + ' ' + header(call, 'altsd-peer-uid')}),
    Fail: (call, done) => {
      if (call.request.value === 'wait') return;
      const metadata = new grpc.Metadata();
      metadata.set('said', call.request.value);
      done({code: grpc.status.FAILED_PRECONDITION, details: 'no: ' + call.request.value, metadata});
    },
    Echo: (call) => call.pipe(call),
  });
  server.bindAsync('unix:' + path, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
    console.log('port 0');
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

// The sizes of the messages of "echo N M", as interop/cpp/peer.cc has them.
function* sizes(n, largest) {
  let random = 0n;
  for (let i = 0; i < n; i++) {
    if (i < 2) {
      yield i === 0 ? largest : 1;
      continue;
    }
    random = BigInt.asUintN(64, random * 6364136223846793005n + 1442695040888963407n);
    const bound = 1n << (random >> 59n);
    yield 1 + Number((random >> 32n) % (bound < largest ? bound : BigInt(largest)));
  }
}

function pattern(at, n) {
  const b = Buffer.alloc(n);
  for (let i = 0; i < n; i++) b[i] = ((at + i) >>> 8) ^ (at + i);
  return b;
}

const soon = (ms) => ({deadline: new Date(Date.now() + ms)});

function unary(client, name, value, metadata, ms = 60000) {
  return new Promise((resolve, reject) => {
    client[name]({value}, metadata, soon(ms), (e, answer) => e ? reject(e) : resolve(answer.value));
  });
}

async function echo(client, n, largest) {
  const stream = client.Echo(soon(60000));
  (async () => {
    let at = 0;
    for (const size of sizes(n, largest)) {
      if (!stream.write({value: pattern(at, size)})) await new Promise((resolve) => stream.once('drain', resolve));
      at += size;
    }
    stream.end();
  })();
  const digest = crypto.createHash('sha256');
  for await (const {value} of stream) digest.update(value.length + ':').update(value);
  return digest.digest('hex');
}

async function turns(client, n) {
  const stream = client.Echo(soon(60000));
  const back = stream[Symbol.asyncIterator]();
  for (let i = 1; i <= n; i++) {
    stream.write({value: pattern(0, i)});
    const {value} = await back.next();
    if (!value || value.value.length !== i) throw new Error('turn ' + i);
  }
  stream.end();
  if (!(await back.next()).done) throw new Error('a message too many');
  return String(n);
}

async function command(client, [name, n, m]) {
  switch (name) {
    case 'greet':
      return unary(client, 'Greet', '', new grpc.Metadata());
    case 'forged': {
      const metadata = new grpc.Metadata();
      for (const name of ['altsd-peer', 'altsd_peer', 'altsd-peer-uid', 'altsd.peer']) metadata.add(name, 'root@beta');
      return unary(client, 'Greet', '', metadata);
    }
    case 'echo':
      return echo(client, Number(n), Number(m));
    case 'turns':
      return turns(client, Number(n));
    case 'fail':
      return unary(client, 'Fail', 'why', new grpc.Metadata()).then(() => { throw new Error('it does not fail'); },
        (e) => `${e.code} ${e.details} ${e.metadata.get('said').join(',')}`);
    case 'deadline':
      return unary(client, 'Fail', 'wait', new grpc.Metadata(), 300).then(() => { throw new Error('an answer'); }, (e) => e.code);
  }
  throw new Error('unknown command ' + name);
}

async function call(path) {
  const client = new (grpc.makeGenericClientConstructor(service))('unix:' + path, grpc.credentials.createInsecure(), options);
  for await (const line of readline.createInterface({input: process.stdin})) {
    const answer = await command(client, line.split(' ')).then((a) => 'ok ' + a, (e) => `error ${e.code} ${e.details || e.message}`);
    console.log(answer.replace(/\n/g, ' '));
  }
  client.close();
}

const [role, path] = process.argv.slice(2);
if (role === 'server') serve(path);
else if (role === 'client') call(path);
else throw new Error('usage: peer.js server PATH | peer.js client PATH');
