// Node's own net module at the other end of a named pipe: pipe.js ROLE PIPE LOG. What it sees goes to
// LOG: its standard output is not to be had under every Wine.

const net = require("node:net");
const fs = require("node:fs");

const [role, path, log] = process.argv.slice(2);
const say = (line) => fs.appendFileSync(log, `${line}\n`);
const fail = (what) => {
  say(`failed: ${what}`);
  process.exit(1);
};
process.on("uncaughtException", (error) => fail(error.stack));
process.on("unhandledRejection", (error) => fail(error.stack));

// Echoes. Ends when it is told to.
const serve = () => {
  const server = net.createServer({ allowHalfOpen: true }, (connection) => {
    let total = 0;
    connection.on("data", (data) => {
      total += data.length;
      if (data.toString() === "end") connection.end("the end");
      else connection.write(data);
    });
    connection.on("end", () => {
      say(`end after ${total}`);
      connection.end();
    });
  });
  server.listen(path, () => say("listening"));
};

const connect = () =>
  new Promise((connected) => {
    const connection = net.connect({ path, allowHalfOpen: true }, () => connected(connection));
    let chunks = [];
    let length = 0;
    let wanted = () => {};
    connection.on("data", (data) => {
      chunks.push(data);
      length += data.length;
      wanted();
    });
    connection.read_exactly = (count) =>
      new Promise((done) => {
        wanted = () => {
          if (length < count) return;
          const all = Buffer.concat(chunks);
          chunks = [all.subarray(count)];
          length -= count;
          wanted = () => {};
          done(all.subarray(0, count));
        };
        wanted();
      });
    connection.ended = new Promise((done) => connection.on("end", done));
  });

const exchange = async (connection, sent) => {
  connection.write(sent);
  const got = await connection.read_exactly(sent.length);
  if (!got.equals(sent)) fail(`other bytes came back: ${got.length}`);
};

const talk = async () => {
  const connection = await connect();
  for (let trip = 0; trip < 1000; trip++) await exchange(connection, Buffer.alloc(64, trip));
  say("1000 round trips");
  await exchange(connection, Buffer.from(Array.from({ length: 1 << 20 }, (_, at) => at % 251)));
  say("1048576 bytes both ways");
  connection.end("last");
  await connection.ended;
  say("the end");
};

// Writes nothing, and then something.
const empty = async () => {
  const connection = await connect();
  connection.write("");
  connection.write("after nothing");
  await connection.ended;
  say("the end");
};

// Is told the end of one direction, and answers.
const answer = async () => {
  const connection = await connect();
  let ended = false;
  connection.ended.then(() => (ended = true));
  await connection.read_exactly(8);
  // Time for the end to be seen.
  await new Promise((done) => setTimeout(done, 300));
  say(ended ? "saw the end of one direction" : "saw no end of one direction");
  connection.write("answer");
  await connection.ended;
  say("the end");
};

({ serve, talk, empty, answer })[role]();
