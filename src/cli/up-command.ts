import { Command } from 'commander';
import { aborted } from '../identity/notice.ts';
import { kebab, type Config, configOptions, loadConfig } from '../config.ts';
import type { Log } from '../log.ts';
import type { Running } from '../up.ts';
import { examples } from './help.ts';
import { globalOptions } from './global-options.ts';
import { print, type Session } from './session.ts';
import { formatStatus, type StatusAnswer } from './status-command.ts';
import { printable } from './text.ts';
import { keepOldGenerationSmall, keepYoungGenerationSmall } from './heap-size.ts';

/** `countersign up`: runs until a signal stops it. */
export function upCommand(session: Session): Command {
  return authorityCommand(session, {
    name: 'up',
    description: 'run the authority and the agent in this process, until a signal stops it',
    next: ['status', 'apply -f mesh.yaml'],
    examples: ['up', 'up --data-dir ./data --trust-domain example.org', 'up --config mesh.yaml'],
    start: async (config, log) => (await import('../up.ts')).startUp(config, log),
  });
}

/** A command that runs an authority. */
export type AuthorityCommand = {
  readonly name: string;
  readonly description: string;
  readonly examples: readonly string[];
  /** What one does next, in another terminal: the words of each command. */
  readonly next: readonly string[];
  readonly start: (config: Config, log: Log) => Promise<Running>;
};

/** Makes the command; `up` and `server` differ in what they start. */
export function authorityCommand(session: Session, made: AuthorityCommand): Command {
  const command = new Command(made.name).description(made.description);
  // --data-dir is an option of every command.
  for (const { name, help, env, defaultText } of configOptions({ ...session, flags: {} })) {
    if (name === 'dataDir') continue;
    const shown = defaultText === '' ? '' : `, default ${defaultText}`;
    command.option(`--${kebab(name)} <value>`, `${help} (${env}${shown})`);
  }
  return command
    .addHelpText('after', examples(...made.examples))
    .action(async (flags: Partial<Record<keyof Config, string>>, self: Command) => {
      const { config: file = null, dataDir } = globalOptions(self);
      const config = loadConfig({
        flags: { ...flags, ...(dataDir === undefined ? {} : { dataDir }) },
        environment: session.environment,
        file,
        isRoot: session.isRoot,
      });
      const stop = session.catchSignals();
      keepYoungGenerationSmall();
      // It has no workloads of its own.
      if (made.name === 'server') keepOldGenerationSmall();
      // Loaded here, so that no other command waits for gRPC, SQLite and the web server to load.
      const { openLog } = await import('../log.ts');
      const running = await made.start(config, openLog(config.logLevel));
      try {
        const status = JSON.parse(JSON.stringify(await running.status())) as StatusAnswer;
        print(
          session,
          self,
          status,
          () => `${formatStatus(status)}\n${howToGoOn(session, config, made.next)}`,
        );
        await aborted(stop);
        session.say('stopping; a second signal stops at once\n');
      } finally {
        await running.close();
      }
    });
}

function howToGoOn(session: Session, { adminSocket }: Config, next: readonly string[]): string {
  const usual = loadConfig({ ...session, flags: {}, file: null }).adminSocket;
  const socket = adminSocket === usual ? '' : ` --socket ${printable(adminSocket)}`;
  return [
    'Next, in another terminal:',
    ...next.map((words) => `  ${session.program}${socket} ${words}`),
    'Ctrl-C stops.\n',
  ].join('\n');
}
