// An echo server and client over Node's own net module: peer.js server|client PATH [ROUNDS].

const net = require("node:net");

const [role, path, rounds = "1"] = process.argv.slice(2);
if (role === "server") {
  const server = net.createServer({ allowHalfOpen: true }, (connection) => {
    connection.pipe(connection);
    connection.on("close", () => server.close());
  });
  server.listen(path, () => console.log("listening"));
} else {
  const sent = Buffer.from(Array.from({ length: 65536 }, (_, index) => index % 256));
  let [left, total, chunks, length] = [Number(rounds), 0, [], 0];
  const send = () => (--left === 0 ? connection.end(sent) : connection.write(sent));
  const connection = net.connect({ path, allowHalfOpen: true }, send);
  connection.on("data", (chunk) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length < sent.length) return;
    const received = Buffer.concat(chunks);
    if (!received.equals(sent)) throw new Error(`${received.length} bytes`);
    total += length;
    [chunks, length] = [[], 0];
    if (left > 0) send();
  });
  connection.on("end", () => {
    if (length > 0 || left > 0) throw new Error(`${length} bytes of ${sent.length}`);
    console.log("ok", total);
  });
}
