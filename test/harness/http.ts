import { request } from 'node:http';

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
};

export type Ask = {
  /** Of a Unix socket, or a loopback port. */
  readonly to: string | number;
  readonly path: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly timeoutMs?: number;
};

/** One request over a connection of its own. @throws Error when there is no answer within the time */
export function ask({
  to,
  path,
  method = 'GET',
  headers = {},
  body,
  timeoutMs = 10_000,
}: Ask): Promise<Answer> {
  const where = typeof to === 'number' ? { host: '127.0.0.1', port: to } : { socketPath: to };
  return new Promise((resolve, reject) => {
    const sent = request({ ...where, path, method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString('utf8'),
        }),
      );
    });
    sent.setTimeout(timeoutMs, () => sent.destroy(new Error(`no answer from ${to} within ${timeoutMs} ms`)));
    sent.on('error', reject);
    sent.end(body);
  });
}

/**
 * One call of the admin API on its socket.
 * @returns the answer's JSON; undefined when it has none
 * @throws Error for a refusal, with its text
 */
export async function askAdmin(to: string, method: string, path: string, body?: unknown): Promise<unknown> {
  const answer = await ask({
    to,
    method,
    path,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
  return answer.body === '' ? undefined : JSON.parse(answer.body);
}
