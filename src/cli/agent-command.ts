import { Command } from 'commander';
import { aborted } from '../identity/notice.ts';
import { kebab, agentOptions, type AgentOption, environmentName, loadAgentConfig } from '../agent-config.ts';
import { filesCommand } from './files-command.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { print, type Session } from './session.ts';
import { formatPairs } from './text.ts';
import { keepYoungGenerationSmall } from './young-generation.ts';

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
      const { dataDir } = globalOptions(self);
      const config = loadAgentConfig({ ...flags, ...(dataDir === undefined ? {} : { dataDir }) }, session);
      const stop = session.catchSignals();
      keepYoungGenerationSmall();
      const [{ openLog }, { startAgent }] = await Promise.all([import('../log.ts'), import('../agent.ts')]);
      const running = await startAgent(config, openLog(config.logLevel), undefined, stop);
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
