import { Command } from 'commander';
import { MeshError } from '../errors.ts';
import { aborted } from '../identity/notice.ts';
import { kebab, agentOptions, type AgentOption, environmentName, loadAgentConfig } from '../agent-config.ts';
import { filesCommand } from './files-command.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { print, type Session } from './session.ts';
import { formatPairs } from './text.ts';
import { keepYoungGenerationSmall } from './heap-size.ts';

/** `countersign agent`: runs until a signal stops it. */
export function agentCommand(session: Session): Command {
  const command = new Command('agent').description(
    'serve the workloads of this machine for a server elsewhere, until a signal stops it',
  );
  for (const [name, help] of Object.entries(agentOptions)) {
    command.option(`--${kebab(name)} <value>`, `${help} (${environmentName(name)})`);
  }
  return command
    .addCommand(filesCommand(session))
    .addHelpText(
      'after',
      examples('agent --server-address mesh.example.org:7444 --join-token-file /etc/countersign/join-token'),
    )
    .action(async (flags: Partial<Record<AgentOption, string>>, self: Command) => {
      const { dataDir, config: file } = globalOptions(self);
      if (file !== undefined) {
        throw new MeshError('usage', 'an agent has no configuration file', {
          fix: 'give its options as flags or in the environment: see countersign agent --help',
        });
      }
      const config = loadAgentConfig({ ...flags, ...(dataDir === undefined ? {} : { dataDir }) }, session);
      const stop = session.catchSignals();
      keepYoungGenerationSmall();
      const [{ openLog }, { startAgent }] = await Promise.all([import('../log.ts'), import('../agent.ts')]);
      const running = await startAgent(config, openLog(config.logLevel), undefined, stop).catch(
        (error: unknown) => {
          // Whoever stops an agent that still waits for its server has what they asked for.
          if (!stop.aborted || !(error instanceof MeshError) || error.code !== 'shutting_down') throw error;
          session.say(`${error.message}\n`);
          return undefined;
        },
      );
      if (running === undefined) return;
      try {
        const status = running.status();
        print(session, self, status, () =>
          formatPairs([
            ['node', status.node?.spiffeId ?? ''],
            ['trust domain', status.trustDomain ?? ''],
            ['workload socket', status.workloadSocket],
            ['server', status.server.connected ? 'connected' : 'away; serving from the sealed cache'],
            ['entries', `${status.entries}`],
            ['policies', `${status.policies}`],
          ]),
        );
        await aborted(stop);
        session.say('stopping; a second signal stops at once\n');
      } finally {
        await running.close();
      }
    });
}
