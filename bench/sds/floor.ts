import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { secretOf, secretTypeUrl } from '../../src/xds/secret.ts';
import { encodeResponse } from '../../src/xds/response.ts';
import { startChild } from '../../test/harness/child.ts';
import { eventually } from '../../test/harness/eventually.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { createAuthority, credentialsOf } from '../../test/xds/certificates.ts';

/** A server that answers every stream with the same bytes and does nothing else: what our figures are measured by. */
export type Floor = { readonly socket: string; readonly pid: number };

/** Starts it as a process of its own. Its response holds what the agent's does: a key, two certificates and a root. */
export async function startFloor(scope: Scope, directory: string, id: string): Promise<Floor> {
  const authority = await createAuthority('mesh.test');
  const credentials = credentialsOf(authority, [await authority.issue(id)]);
  const resources = ['default', 'ROOTCA'].flatMap(
    (name) => secretOf(credentials, name, { plainTrustedCa: false }) ?? [],
  );
  const sample = 'f'.repeat(32);
  const file = join(directory, 'floor.response');
  writeFileSync(
    file,
    encodeResponse({ nonce: sample, version: sample, resources, removed: [] }, secretTypeUrl),
  );
  const socket = join(directory, 'floor.sock');
  const child = startChild(scope, {
    command: process.execPath,
    args: [join(import.meta.dirname, 'floor-server.ts'), socket, file],
    logFile: join(directory, 'floor.log'),
  });
  const serving = () => {
    if (!child.output().includes('serving')) throw new Error('not yet');
    return true;
  };
  await eventually('the floor to serve', serving, { withinMs: 30_000 });
  return { socket, pid: child.pid };
}
