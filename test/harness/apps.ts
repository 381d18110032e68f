import { createServer as createHttpServer, type IncomingHttpHeaders } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import type { Scope } from './scope.ts';

export type SeenRequest = {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
};

/** An HTTP application that answers 200 with its name and remembers what reached it. */
export type HttpApp = { readonly port: number; readonly seen: readonly SeenRequest[] };

export async function startHttpApp(scope: Scope, name: string): Promise<HttpApp> {
  const seen: SeenRequest[] = [];
  const server = createHttpServer((request, response) => {
    seen.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers });
    response.end(`${name}\n`);
  });
  return { port: await listen(scope, server), seen };
}

/** A TCP application that gives back what it gets. */
export async function startEchoApp(scope: Scope): Promise<{ readonly port: number }> {
  const server = createTcpServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  return { port: await listen(scope, server) };
}

async function listen(scope: Scope, server: Server): Promise<number> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  scope.defer(() => {
    for (const socket of open) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}
