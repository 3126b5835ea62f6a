// Reads requests as llhttp does, in the HTTP server of Node.js with its strict defaults.
//
// One case a line on standard input, in hexadecimal: the bytes of a connection up to its end. One
// line for each on standard output: METHOD,TARGET,BODY for every whole request (target and body in
// hexadecimal), then ok, closed (a request said that it is the last) or error.
'use strict';
const http = require('http');
const net = require('net');

let said = [];
let end = 'ok';
const server = http.createServer({ maxHeaderSize: 1 << 17, insecureHTTPParser: false });
server.maxHeadersCount = 0;
server.on('request', (request, response) => {
  const body = [];
  request.on('data', (part) => body.push(part));
  request.on('end', () => {
    if (!request.complete) return;
    const hex = (bytes) => Buffer.from(bytes).toString('hex');
    const target = hex(Buffer.from(request.url, 'latin1'));
    said.push(`${request.method},${target},${hex(Buffer.concat(body))}`);
    if (!response.shouldKeepAlive) end = 'closed';
  });
  // Answered at once: requests behind it on the connection are not held back.
  response.writeHead(200, { 'Content-Length': 0 });
  response.end();
});
server.on('clientError', (_, socket) => {
  if (end === 'ok') end = 'error';
  socket.destroy();
});

function read(port, data) {
  return new Promise((resolve) => {
    [said, end] = [[], 'ok'];
    // Both ends have closed: nothing more can be said about this case.
    let open = 2;
    const closed = () => { if (--open === 0) resolve([...said, end].join(' ')); };
    server.once('connection', (socket) => socket.on('close', closed));
    const client = net.connect(port, '127.0.0.1', () => client.end(data));
    client.on('error', () => {});
    client.on('close', closed);
    client.resume();
  });
}

server.listen(0, '127.0.0.1', async () => {
  const cases = require('fs').readFileSync(0, 'latin1').split('\n').filter(Boolean);
  for (const line of cases) {
    console.log(await read(server.address().port, Buffer.from(line, 'hex')));
  }
  server.close();
});
