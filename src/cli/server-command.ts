import type { Command } from 'commander';
import type { Session } from './session.ts';
import { authorityCommand } from './up-command.ts';

/** `countersign server`: runs until a signal stops it. */
export function serverCommand(session: Session): Command {
  return authorityCommand(session, {
    name: 'server',
    description: 'run the authority for agents on other machines, until a signal stops it',
    next: ['status', 'node token create web-1 --out web-1.token', 'apply -f mesh.yaml'],
    examples: ['server --node-address 0.0.0.0:7444', 'server --config mesh.yaml'],
    start: async (config, log) => (await import('../server.ts')).startServer(config, log),
  });
}
