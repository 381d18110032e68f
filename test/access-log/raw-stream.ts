import { connect } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import type { Scope } from '../harness/scope.ts';

/** Opens streams of a method over one connection, whose bytes a test writes itself: messages may be left unfinished. */
export function rawStreams(scope: Scope, socketPath: string, method: string) {
  const session = connect('http://localhost', { createConnection: () => connectSocket(socketPath) });
  session.on('error', () => undefined);
  scope.defer(() => session.destroy());
  return () => {
    const stream = session.request({
      ':method': 'POST',
      ':path': method,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => undefined).resume();
    const status = Promise.withResolvers<unknown>();
    stream.on('response', (headers) => 'grpc-status' in headers && status.resolve(headers['grpc-status']));
    stream.on('trailers', (headers) => status.resolve(headers['grpc-status']));
    const write = (bytes: Buffer) => new Promise((resolve) => stream.write(bytes, resolve));
    return { stream, write, status: status.promise };
  };
}
