import { request as httpRequest } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';

export type BoundedGet = {
  readonly options: RequestOptions;
  readonly tls: boolean;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
  /** Takes the body of a 200, piece by piece. What it throws ends the request. */
  readonly onData: (chunk: Buffer) => void;
};

/**
 * One GET on a connection of its own. Redirects are not followed.
 * @returns the status; only of a 200 has the body been handed on
 * @throws Error when the connection fails, the body is too large or cut short, or `signal` aborts
 */
export function boundedGet({ options, tls, maxBytes, signal, onData }: BoundedGet): Promise<number> {
  return new Promise((resolve, reject) => {
    const send = tls ? httpsRequest : httpRequest;
    const call = send(
      { ...options, method: 'GET', agent: false, signal, maxHeaderSize: 16_384 },
      (response) => {
        const status = response.statusCode ?? 0;
        response.once('error', reject);
        if (status !== 200) {
          response.destroy();
          resolve(status);
          return;
        }
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          try {
            if (bytes > maxBytes) throw new Error(`the answer has more than ${maxBytes} bytes`);
            onData(chunk);
          } catch (error) {
            reject(error instanceof Error ? error : new Error('the answer could not be read'));
            response.destroy();
          }
        });
        response.once('end', () => resolve(status));
        response.once('close', () => reject(new Error('the answer was cut short')));
      },
    );
    call.once('error', reject);
    call.end();
  });
}
