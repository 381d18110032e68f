import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseVerifierKey } from '../../src/audit/note.ts';
import { streamSvid } from '../../src/cli/svid-stream.ts';
import { verifyIssuanceProof } from '../../src/identity/issuance-proof.ts';
import { makeNoteSigner } from '../audit/log-files.ts';
import { ask } from '../harness/http.ts';
import { entry } from '../harness/mesh.ts';
import {
  type AgentHere,
  logged,
  type ServerHere,
  startAgentHere,
  startServerHere,
} from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

// One server, and agents that want to see the log: the key learned, the key given, and another one given.
const scope = createScope();
afterAll(() => scope.close());

const id = 'spiffe://mesh.test/web';
let server: ServerHere;
let directory: string;
let key: string;

beforeAll(async () => {
  directory = makeTempDir(scope);
  server = await startServerHere(scope, directory);
  await server.apply(entry(id, '/', { nodes: ['*'], selectors: [`unix:uid:${process.geteuid?.()}`] }));
  key = (await ask({ to: join(directory, 'a.sock'), path: '/v1/audit/log/key' })).body.trimEnd();
});

async function startAgent(name: string, flags: Readonly<Record<string, string>>): Promise<AgentHere> {
  const token = await server.token(name);
  const at = { directory: join(directory, name), port: server.port };
  const agent = startAgentHere(scope, { ...at, token, flags: { requireIssuanceProof: 'true', ...flags } });
  await agent.started;
  return agent;
}

async function fetchSvid({ workloadSocket: socket }: AgentHere) {
  const late = AbortSignal.timeout(60_000);
  for await (const svid of streamSvid({ socket, name: 'default' }, late)) return svid;
  throw new Error('no certificate came');
}

test.each([
  ['that learned the key', () => ({})],
  ['that was given the key', () => ({ auditLogKey: key })],
])('an agent %s serves certificates with proofs that hold', async (name, flags) => {
  const agent = await startAgent(name.replaceAll(' ', '-'), flags());
  const { certificates, proof } = await fetchSvid(agent);
  const { entry: proven } = verifyIssuanceProof(proof ?? '', certificates[0]!, parseVerifierKey(key));
  // The record names the node, and the certificate with which it asked.
  const { caller, spiffeId } = JSON.parse(proven) as { caller: Record<string, unknown>; spiffeId: string };
  expect([spiffeId, caller['node']]).toEqual([id, name.replaceAll(' ', '-')]);
  expect(caller['nodeCertificate']).toBe((await agent.started).status().node?.serial);
});

test('an agent that was given the key of another log serves nothing, and says why', async () => {
  const { verifierKey } = makeNoteSigner('mesh.test/audit', 9);
  const agent = await startAgent('other', { auditLogKey: verifierKey });
  await logged(agent, 'the server names another key of its audit log');
  const late = AbortSignal.timeout(60_000);
  const stop = new AbortController();
  const none = (async () => {
    for await (const _ of streamSvid(
      { socket: agent.workloadSocket, name: 'default' },
      AbortSignal.any([late, stop.signal]),
    ))
      return 'served';
    return 'nothing';
  })();
  await logged(agent, 'audit_signature_invalid');
  stop.abort();
  expect(await none).toBe('nothing');
});

test.each([
  ['auditLogKey', 'mesh.test/audit+00000000+AAAA', 'config_invalid'],
  ['auditLogKey', '/nowhere/log.key', 'file_missing'],
  ['requireIssuanceProof', 'yes', 'config_invalid'],
])('%s %s is refused', async (name, value, code) => {
  const at = { directory: join(directory, 'refused'), port: server.port };
  expect(() => startAgentHere(scope, { ...at, flags: { [name]: value } })).toThrow(
    expect.objectContaining({ code }),
  );
});
