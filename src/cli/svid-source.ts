import { createUnixAttestor } from '../attest/unix.ts';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import { endpointSocket } from './endpoint-socket.ts';
import type { GlobalOptions } from './global-options.ts';
import type { Session } from './session.ts';

/**
 * The workload socket to speak to: the one named, or the configured one, or that of `SPIFFE_ENDPOINT_SOCKET` where
 * nothing is configured.
 * @throws MeshError `config_invalid`, `usage`
 */
export function workloadSocketOf(session: Session, global: GlobalOptions, named?: string): string {
  const own = session.environment['COUNTERSIGN_WORKLOAD_SOCKET'] ?? global.dataDir ?? global.config;
  const socket = named ?? (own === undefined ? endpointSocket(session.environment) : undefined);
  return loadConfig({
    flags: {
      ...(socket === undefined ? {} : { workloadSocket: socket }),
      ...(global.dataDir === undefined ? {} : { dataDir: global.dataDir }),
    },
    environment: session.environment,
    file: global.config ?? null,
    isRoot: session.isRoot,
  }).workloadSocket;
}

/** The server never says who it takes the caller for, so what it will have seen is looked up here. */
export async function noIdentity(name: string, seconds: number): Promise<MeshError> {
  const what = name === 'default' ? 'an identity' : quote(name);
  const selectors = await ownSelectors();
  return new MeshError(
    'identity_none',
    `no certificate within ${seconds} s: no entry gives this process ${what}`,
    {
      fix:
        selectors === undefined
          ? 'make an entry whose selectors this process has; countersign audit list --type refusal names them'
          : `make an entry whose selectors are among those of this process: ${selectors}`,
    },
  );
}

async function ownSelectors(): Promise<string | undefined> {
  const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
  if (uid === undefined || gid === undefined) return undefined;
  const own = {
    kind: 'unix',
    connectionId: 'self',
    pid: process.pid,
    uid,
    gid,
    isAlive: () => true,
  } as const;
  try {
    return (await createUnixAttestor()(own)).selectors.map(({ text }) => text).join(', ');
  } catch {
    return undefined;
  }
}
