import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { MeshError } from '../errors.ts';
import { checkData } from './check-files.ts';
import type { CheckPlaces } from './check-probe.ts';
import type { CheckResult } from './check-report.ts';
import { failed } from './check-result.ts';

/**
 * Nothing answers. What lies on the disk says what ran here, and can be looked at all the same.
 * @param server why no server answered
 * @param agent why the agent of this machine did not; undefined where one place was named, that may be either
 */
export function judgeAbsence(
  { config, options, agentDataDir }: CheckPlaces,
  server: MeshError,
  agent: MeshError | undefined,
  program: string,
): readonly CheckResult[] {
  const { message, fix = '' } = server;
  if (config === null) return [failed('server_answers', 'a server answers', message, fix)];
  const { dataDir } = config;
  // Whoever may not use the socket is told so; whether anything runs they cannot tell.
  if (server.code === 'forbidden') return [failed('server_answers', 'a server answers', message, fix)];
  if (agent !== undefined && !holdsServer(dataDir) && holdsAgent(agentDataDir)) {
    return agentAbsent(agentDataDir, agent.message, program);
  }
  if (holdsAgent(dataDir) && !holdsServer(dataDir)) return agentAbsent(dataDir, message, program);
  if (holdsServer(dataDir)) {
    const again = `start it again, with its other options: ${program} up --data-dir ${dataDir} (or server in place of up)`;
    return [...checkData(dataDir), failed('server_answers', 'a server answers', message, again)];
  }
  const start = `start one: ${program} up on one machine, or ${program} server and an agent on each (docs/nodes.md)`;
  return [
    // A socket alone does not say where its data are.
    ...(options.socket !== undefined && options.dataDir === undefined ? [] : checkData(dataDir)),
    failed('server_answers', 'a server answers', message, start),
  ];
}

function agentAbsent(dataDir: string, cause: string, program: string): readonly CheckResult[] {
  const text = 'an agent answers';
  const fix = `start it again, with its other options: ${program} agent --data-dir ${dataDir}`;
  return [...checkData(dataDir), failed('agent_answers', text, cause.replace('no server', 'no agent'), fix)];
}

function holdsServer(dataDir: string): boolean {
  return existsSync(join(dataDir, 'countersign.db'));
}

function holdsAgent(dataDir: string): boolean {
  return existsSync(join(dataDir, 'cache'));
}
