import { createServer, request } from 'node:http';

/** A server in front of another that changes some of its answers on the way. */
export type Relay = {
  readonly socket: string;
  /** What becomes of the answer to a path. Throwing answers 500. */
  lie: (path: string, answer: unknown) => unknown;
  readonly close: () => Promise<void>;
};

/** Listens on a Unix socket, and asks the admin socket `to`. */
export async function startRelay(socket: string, to: string): Promise<Relay> {
  const relay = { socket, lie: (_path: string, answer: unknown): unknown => answer };
  const server = createServer((incoming, outgoing) => {
    const { method, url: path = '/', headers } = incoming;
    const asked = request({ socketPath: to, method, path, headers, agent: false }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        const isJson = answer.headers['content-type']?.includes('json') === true;
        const told = isJson ? JSON.stringify(relay.lie(path.split('?')[0] ?? '', JSON.parse(text))) : text;
        outgoing
          .writeHead(answer.statusCode ?? 500, {
            'content-type': answer.headers['content-type'] ?? 'text/plain',
          })
          .end(told);
      });
    });
    asked.on('error', () => outgoing.writeHead(502).end());
    incoming.pipe(asked);
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return Object.assign(relay, {
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  });
}
