import { Command } from 'commander';
import { systemClock } from '../clock.ts';
import { formatReport, reportOf } from './check-report.ts';
import { exitCodes } from './failure.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { parseLifetime } from './lifetime.ts';
import { print, type Session } from './session.ts';

type CheckOptions = { readonly wait?: number; readonly strict?: boolean };

/** `countersign check`. */
export function checkCommand(session: Session): Command {
  return new Command('check')
    .description('examine a running installation: what is wrong, why, and what to do')
    .option('--wait <duration>', 'until nothing fails, for so long at most: 30s, 5m', parseLifetime)
    .option('--strict', 'exit 1 for a warning too')
    .addHelpText('after', examples('check', 'check --wait 1m', 'check --data-dir ./data -o json'))
    .action(async ({ wait = 0, strict = false }: CheckOptions, command: Command) => {
      const stop = session.catchSignals();
      // Loaded here, so that no other command waits for gRPC and the schemas of answers to load.
      const { runChecks } = await import('./check-run.ts');
      const until = performance.now() + wait * 1_000;
      const look = async () => reportOf(await runChecks(session, globalOptions(command), systemClock.now));
      let report = await look();
      while (!report.ok && performance.now() < until && !stop.aborted) {
        await systemClock.sleep(Math.min(everyMs, until - performance.now()), stop);
        report = await look();
      }
      print(session, command, report, () => formatReport(report));
      const isGone = report.sections.some(({ checks }) =>
        checks.some(({ code, status }) => answers.has(code) && status === 'failed'),
      );
      if (isGone) session.exitCode = exitCodes.unavailable;
      else if (!report.ok || (strict && report.warnings > 0)) session.exitCode = exitCodes.negative;
    });
}

const everyMs = 1_000;
const answers: ReadonlySet<string> = new Set(['server_answers', 'agent_answers']);
