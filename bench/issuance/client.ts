// The caller of the RPC benchmark, a process of its own: node client.ts <socket> <method path> <seconds> <in flight>.
// Reads requests from standard input (base64, one a line), sends them in turn, prints {"count","seconds","p99Ms"}.
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { Client, credentials } from '@grpc/grpc-js';

const [socket = '', method = '', seconds = '1', inFlight = '1'] = process.argv.slice(2);
const requests = readFileSync(0, 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => Buffer.from(line, 'base64'));
const client = new Client(`unix:${socket}`, credentials.createInsecure());
const pass = (bytes: Buffer): Buffer => bytes;
const tookMs: number[] = [];
let sent = 0;

await run(300);
tookMs.length = 0;
const started = performance.now();
await run(Number(seconds) * 1_000);
const took = (performance.now() - started) / 1_000;
client.close();
tookMs.sort((a, b) => a - b);
const p99Ms = tookMs[Math.floor(tookMs.length * 0.99)];
console.log(JSON.stringify({ count: tookMs.length, seconds: took, p99Ms }));

async function run(ms: number): Promise<void> {
  const until = performance.now() + ms;
  const lane = async (): Promise<void> => {
    while (performance.now() < until) await call();
  };
  await Promise.all(Array.from({ length: Number(inFlight) }, lane));
}

function call(): Promise<void> {
  const request = requests[sent++ % requests.length] ?? Buffer.alloc(0);
  const begun = performance.now();
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(method, pass, pass, request, (error) => {
      if (error !== null) return reject(error);
      tookMs.push(performance.now() - begun);
      resolve();
    });
  });
}
