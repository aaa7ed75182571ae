// Echoes, counts or drives as the Rust side of the benchmark does.
'use strict';
const net = require('net');
const [role, work, address, millis] = process.argv.slice(2);
const [kind, size] = work.split('-');
const bytes = { '64': 64, '1k': 1024, '64k': 65536, '1m': 1 << 20 }[size];
const EVERY = 32 << 20;
const micros = () => Number(process.hrtime.bigint()) / 1e3;

function server() {
  const listener = net.createServer((stream) => {
    let seen = 0;
    stream.on('error', () => {});
    stream.on('data', (data) => {
      if (kind !== 'oneway') return stream.write(data);
      const before = Math.floor(seen / EVERY);
      seen += data.length;
      for (let n = before; n < Math.floor(seen / EVERY); n++) stream.write(Buffer.from([1]));
    });
  });
  listener.listen(address, () => console.log('listening ' + address));
  process.stdin.on('end', () => process.exit(0)).resume();
}

function report(times, seconds) {
  times.sort((a, b) => a - b);
  const at = (part) => times[Math.floor((times.length - 1) * part)];
  console.log(`ops=${times.length} seconds=${seconds} p50=${at(0.5)} p99=${at(0.99)}`);
  process.exit(0);
}

function client() {
  const start = micros() + millis * 50, end = start + millis * 1000, times = [];
  if (kind === 'pingpong') {
    const stream = net.connect(address), question = Buffer.alloc(bytes);
    let now, missing = bytes;
    stream.on('connect', () => { now = micros(); stream.write(question); });
    stream.on('data', (data) => {
      if ((missing -= data.length) > 0) return;
      const done = micros();
      if (now >= start) times.push(done - now);
      if (done >= end) return report(times, (done - start) / 1e6);
      now = done;
      missing = bytes;
      stream.write(question);
    });
  } else if (kind === 'connect') {
    let running = Number(size);
    const once = () => {
      const now = micros();
      if (now >= end) { if (--running === 0) report(times, millis / 1e3); return; }
      const stream = net.connect(address, () => stream.write(Buffer.from([1])));
      stream.on('data', () => stream.destroy());
      stream.on('close', () => { if (now >= start) times.push(micros() - now); once(); });
    };
    for (let n = running; n > 0; n--) once();
  } else {
    const stream = net.connect(address), block = Buffer.alloc(bytes), begun = micros();
    let sent = 0, receipts = 0, over = false;
    const pour = () => {
      for (;;) {
        const before = Math.floor(sent / EVERY);
        const room = stream.write(block);
        sent += bytes;
        if (Math.floor(sent / EVERY) > before && micros() >= end) { over = true; return; }
        if (!room) return;
      }
    };
    stream.on('drain', () => { if (!over) pour(); });
    stream.on('connect', pour);
    stream.on('data', (data) => {
      receipts += data.length;
      if (!over || receipts < Math.floor(sent / EVERY)) return;
      console.log(`ops=${sent / bytes} seconds=${(micros() - begun) / 1e6}`);
      process.exit(0);
    });
  }
}

role === 'server' ? server() : client();
