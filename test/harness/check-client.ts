import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { AuthorizationService } from '../../src/wire/authz.ts';

/** Sends the bytes of a CheckRequest as this very process, over a connection of its own; answers with bytes. */
export function sendCheck(socket: string, bytes: Buffer): Promise<Buffer> {
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  return sendCheckOver(client, bytes).finally(() => client.close());
}

/** The same over the connection of a client. */
export function sendCheckOver(client: Client, bytes: Buffer): Promise<Buffer> {
  const pass = (buffer: Buffer): Buffer => buffer;
  const options = { deadline: Date.now() + 5_000 };
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, answer?: Buffer): void => {
      if (error !== null || answer === undefined) reject(error ?? new Error('no answer'));
      else resolve(answer);
    };
    client.makeUnaryRequest(AuthorizationService.check.path, pass, pass, bytes, options, done);
  });
}
