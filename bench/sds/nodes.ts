// Many nodes in a process of its own: opens a view for each over a connection of its own, all within a second, and tells
// when each had its full view. HTTP/2 by hand, as thousands of clients of grpc-js would measure themselves.
import { readFileSync } from 'node:fs';
import { connect as connectHttp2, type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectTls } from 'node:tls';

/** What the process is told of each node; PEM. */
export type SavedNode = { readonly certificate: string; readonly privateKey: string };
/** Milliseconds from the start of each connection to its full view, and what went wrong. */
export type NodeTimes = {
  readonly views: readonly number[];
  readonly ended: number;
  readonly failed: number;
};

/** One connection of a node, over which views can be asked for. */
export type NodeSession = {
  /** @param stays whether the stream is kept; a node may have a few */
  readonly view: (stays: boolean) => Promise<number>;
  readonly close: () => void;
};

export function openSession(
  port: number,
  { certificate, privateKey }: SavedNode,
  onEnd: () => void = () => undefined,
): NodeSession {
  const session: ClientHttp2Session = connectHttp2('https://countersign', {
    createConnection: () =>
      connectTls({
        host: '127.0.0.1',
        port,
        cert: certificate,
        key: privateKey,
        ALPNProtocols: ['h2'],
        // Whether the server is the right one is measured nowhere here.
        rejectUnauthorized: false,
      }),
  });
  session.on('error', onEnd);
  session.on('close', onEnd);
  return {
    view: (stays) =>
      new Promise((resolve, reject) => {
        const began = performance.now();
        const stream = session.request({
          ':method': 'POST',
          ':path': '/countersign.node.v1.Node/WatchView',
          'content-type': 'application/grpc',
          te: 'trailers',
        });
        let received = 0;
        let length = Infinity;
        stream.on('data', (bytes: Buffer) => {
          if (received === 0 && bytes.length >= 5) length = bytes.readUInt32BE(1) + 5;
          received += bytes.length;
          if (received < length) return;
          resolve(performance.now() - began);
          if (!stays) stream.close();
        });
        let why = 'it was cut';
        const note = (headers: IncomingHttpHeaders): void => {
          if (headers['grpc-status'] !== undefined) {
            why = `status ${String(headers['grpc-status'])}: ${String(headers['grpc-message'])}`;
          }
        };
        stream.on('response', note);
        stream.on('trailers', note);
        stream.on('error', reject);
        stream.on('close', () => reject(new Error(`the stream of a view ended: ${why}`)));
        // An empty message, after which nothing comes.
        stream.end(Buffer.alloc(5));
      }),
    close: () => session.destroy(),
  };
}

if (process.send !== undefined && process.argv[2] !== undefined) {
  const nodes = JSON.parse(readFileSync(process.argv[2], 'utf8')) as readonly SavedNode[];
  const port = Number(process.argv[3]);
  let views: number[] = [];
  let [ended, failed] = [0, 0];
  process.on('message', (message: 'open' | 'report') => {
    if (message === 'report') return void process.send?.({ views, ended, failed } satisfies NodeTimes);
    views = [];
    [ended, failed] = [0, 0];
    for (const node of nodes) {
      setTimeout(() => {
        let over = false;
        const began = performance.now();
        const session = openSession(port, node, () => {
          if (!over) ended += 1;
          over = true;
        });
        session.view(true).then(
          () => views.push(performance.now() - began),
          (error: unknown) => {
            failed += 1;
            if (failed <= 3) console.error(`failed: ${String(error)}`);
          },
        );
      }, Math.random() * 1_000);
    }
    return undefined;
  });
}
