// An echo server and client over Node's own net module: peer.js server|client PATH.

const net = require("node:net");

const [role, path] = process.argv.slice(2);
if (role === "server") {
  const server = net.createServer({ allowHalfOpen: true }, (connection) => {
    connection.pipe(connection);
    connection.on("close", () => server.close());
  });
  server.listen(path, () => console.log("listening"));
} else {
  const sent = Buffer.from(Array.from({ length: 65536 }, (_, index) => index % 256));
  const chunks = [];
  const connection = net.connect({ path, allowHalfOpen: true }, () => connection.end(sent));
  connection.on("data", (chunk) => chunks.push(chunk));
  connection.on("end", () => {
    const received = Buffer.concat(chunks);
    if (!received.equals(sent)) throw new Error(`${received.length} bytes`);
    console.log("ok", received.length);
  });
}
