import { copyFileSync, existsSync, linkSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import type { Authority } from '../test/harness/authority.ts';
import { type Child, startChild } from '../test/harness/child.ts';
import { eventually } from '../test/harness/eventually.ts';
import { prepareNginx, startNginx } from '../test/harness/nginx.ts';
import type { Scope } from '../test/harness/scope.ts';

/** `shop/assets`: an NGINX that reads its certificate from files, and the `countersign agent files` that keeps them. */
export type Assets = {
  readonly id: string;
  /** The Node that runs the agent, at a path of its own, so that `unix:path` tells it from every other. */
  readonly binary: string;
  readonly agent: Child;
  readonly port: number;
  /** Starts NGINX as soon as it has files. */
  readonly serve: () => Promise<void>;
  /** The serial of the certificate that a new connection is shown, in the log's form. */
  readonly servedSerial: () => Promise<string>;
  /** What a client without a certificate is answered. */
  readonly turnAway: () => Promise<string>;
};

export function startAssets(
  scope: Scope,
  { authority, directory, id, port }: { authority: Authority; directory: string; id: string; port: number },
): Assets {
  const home = join(directory, 'shop-assets');
  mkdirSync(home);
  const binary = join(home, 'node');
  try {
    linkSync(process.execPath, binary);
  } catch {
    // Another file system, or a binary of another owner.
    copyFileSync(process.execPath, binary);
  }
  const files = join(home, 'svid');
  const nginx = {
    directory: join(home, 'nginx'),
    files,
    port,
    answer: 'shop/assets to $ssl_client_serial\\n',
  };
  const { reload } = prepareNginx(nginx);
  const main = join(import.meta.dirname, '../src/cli/main.ts');
  const agent = startChild(scope, {
    command: binary,
    args: [
      ...[main, 'agent', 'files', '--workload-socket', authority.workloadSocket, '--directory', files],
      // Until NGINX runs the hook fails, and is tried again.
      ...['--', ...reload],
    ],
    logFile: join(home, 'files.log'),
  });
  return {
    id,
    binary,
    agent,
    port,
    serve: async () => {
      await eventually('the files of NGINX', () => existsSync(join(files, 'bundle.pem')));
      await startNginx(scope, nginx);
    },
    servedSerial: async () => (await shake(port)).serial,
    turnAway: async () => (await shake(port)).answer,
  };
}

/** With `ssl_verify_client on` NGINX finishes the handshake and then answers 400 to whom it does not know. */
function shake(port: number): Promise<{ serial: string; answer: string }> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, minVersion: 'TLSv1.3' });
    let [serial, answer] = ['', ''];
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.once('secureConnect', () => {
      serial = socket.getPeerX509Certificate()?.serialNumber.toLowerCase() ?? '';
      socket.write('GET / HTTP/1.1\r\nhost: assets\r\nconnection: close\r\n\r\n');
    });
    socket.on('data', (data: Buffer) => {
      answer += data.toString('latin1');
    });
    socket.once('error', reject);
    socket.once('close', () => {
      const title = /<title>([^<]+)<\/title>/.exec(answer)?.[1] ?? answer.split('\r\n', 1)[0] ?? '';
      resolve({ serial, answer: title });
    });
  });
}
