import { Command, Option } from 'commander';
import { resolve } from 'node:path';
import { systemClock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { FilesConfiguration, FilesOutput } from './files-configuration.ts';
import type { OutputParts } from './files-output.ts';
import { createFilesMetrics, formatEvent, formatEventJson, isCalm, writeMetrics } from './files-report.ts';
import type { FilesTarget } from './files-target.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { parseLifetime } from './lifetime.ts';
import type { Session } from './session.ts';
import { printable } from './text.ts';

type FilesOptions = {
  readonly file?: string;
  readonly workloadSocket?: string;
  readonly metricsFile?: string;
  readonly once?: boolean;
  readonly timeout: number;
} & OutputOptions;

type OutputOptions = {
  readonly directory?: string;
  readonly spiffeId?: string;
  readonly combined?: string;
  readonly owner?: string;
  readonly group?: string;
  readonly mode?: string;
};

/** `countersign agent files`: keeps files on disk for services that read their certificate from there. */
export function filesCommand(session: Session): Command {
  return (
    new Command('files')
      .description('keep certificate, key and bundle on disk for NGINX and whatever else reads files')
      .argument('[hook...]', 'after --: the program to run when the files of --directory have changed')
      .option('-f, --file <file>', 'a FilesConfiguration, for several directories and every setting')
      .option('--directory <dir>', 'in place of -f: keep svid.pem, key.pem and bundle.pem there')
      .option('--spiffe-id <id>', 'which identity (the default one when left out)')
      .option('--combined <name>', 'write this file too: chain and key in one, as HAProxy reads it')
      .option('--owner <user>', 'whose the files are, by name or number')
      .option('--group <group>', 'which group may read the key, by name or number')
      .option('--mode <mode>', 'of the key: 0400, 0440, 0600 or 0640 (0640 with --group, else 0600)')
      .option('--workload-socket <path>', 'the workload socket (left out: as svid fetch finds it)')
      .option('--metrics-file <file>', "keep metrics there, for the node exporter's textfile collector")
      .option('--once', 'write the files, run the hook and end; the exit code says how it went')
      .addOption(
        new Option('--timeout <duration>', 'how long --once waits for each certificate, such as 30s')
          .argParser(parseLifetime)
          .default(30, '30s'),
      )
      .addHelpText(
        'after',
        examples(
          'agent files -f /etc/countersign/files.yaml',
          'agent files --directory /etc/nginx/svid --group www-data -- nginx -s reload',
          'agent files -f files.yaml --once',
        ),
      )
      // `agent` has options of the same names, and commander gives it those that stand behind `files` too.
      .action((hook: readonly string[], _options: FilesOptions, self: Command) =>
        runFiles(session, hook, self.optsWithGlobals<FilesOptions>(), self),
      )
  );
}

async function runFiles(
  session: Session,
  hook: readonly string[],
  options: FilesOptions,
  command: Command,
): Promise<void> {
  // Loaded here, so that no other command waits for gRPC to load.
  const [
    configuration,
    { openTarget },
    { createExpiryWatch, fillOnce, keepFiles },
    { createFilesSource },
    { createTurns },
    source,
  ] = await Promise.all([
    configurationOf(session, hook, options),
    import('./files-target.ts'),
    import('./files-output.ts'),
    import('./files-source.ts'),
    import('./files-hook.ts'),
    import('./svid-source.ts'),
  ]);
  const { outputs } = configuration;
  const global = globalOptions(command);
  const socket = source.workloadSocketOf(
    session,
    global,
    options.workloadSocket ?? configuration.workloadSocket ?? undefined,
  );
  const metrics = createFilesMetrics(outputs.map(({ name }) => name));
  const report: OutputParts['report'] = (output, event) => {
    const now = systemClock.now();
    const line =
      global.output === 'json' ? formatEventJson(output, event, now) : formatEvent(output, event, now);
    (isCalm(event) ? session.write : session.say)(`${line}\n`);
    metrics.count(output, event);
  };
  const metricsFile = options.metricsFile ?? configuration.metricsFile;
  const publish = createPublisher(session, metricsFile === null ? null : resolve(metricsFile), metrics.text);
  const isOnce = options.once === true;
  const noIdentity = (identity: string) => source.noIdentity(identity, isOnce ? options.timeout : 5);
  const from = createFilesSource(socket, noIdentity);
  const parts: OutputParts = {
    socket,
    source: from,
    environment: session.environment,
    turns: createTurns(),
    report,
    noIdentity,
  };
  const targets: FilesTarget[] = [];
  const each = <T>(work: (output: FilesOutput, target: FilesTarget) => T): T[] =>
    outputs.map((output, i) => work(output, targets[i] as FilesTarget));
  try {
    for (const output of outputs) targets.push(openTarget(output));
    if (isOnce) {
      const deadline = AbortSignal.timeout(options.timeout * 1_000);
      await inTurn(each((output, target) => () => fillOnce(output, target, parts, deadline)));
      return;
    }
    const halt = new AbortController();
    const stop = AbortSignal.any([session.catchSignals(), halt.signal]);
    // First the outputs, which subscribe at once.
    const works = each((output, target) => keepFiles(output, target, parts, stop));
    const watchExpiry = createExpiryWatch(report);
    const watch = async (): Promise<void> => {
      while (!stop.aborted) {
        each(({ name }, target) => watchExpiry(name, target, systemClock.now()));
        publish();
        await systemClock.sleep(watchMs, stop);
      }
    };
    // What one of them cannot go on from ends them all, in order.
    const results = await Promise.allSettled(
      [...works, from.run(stop), watch()].map((work) => work.finally(() => halt.abort())),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  } finally {
    publish();
    for (const target of targets) target.release();
  }
}

/** One after the other; the first failure is thrown in the end. */
async function inTurn(works: readonly (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const work of works) await work().catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

/** Writes the metrics when they have changed. A file that cannot be written is complained of once, and stops nothing. */
function createPublisher(session: Session, file: string | null, text: () => string): () => void {
  let [published, complained] = ['', false];
  return () => {
    const now = text();
    if (file === null || now === published) return;
    try {
      writeMetrics(file, now);
      [published, complained] = [now, false];
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (!complained)
        session.say(`the metrics file ${printable(file)} cannot be written (${code ?? 'unknown'})\n`);
      complained = true;
    }
  };
}

async function configurationOf(
  session: Session,
  hook: readonly string[],
  { file, ...options }: FilesOptions,
): Promise<FilesConfiguration> {
  const { accountsOf, fileName, hookTimeoutBounds, readFilesConfiguration } =
    await import('./files-configuration.ts');
  const { defaultFiles } = await import('./svid-files.ts');
  const { directory, spiffeId, combined, owner, group, mode } = options;
  const hasOutput =
    hook.length > 0 ||
    [directory, spiffeId, combined, owner, group, mode].some((value) => value !== undefined);
  if ((file === undefined) === (directory === undefined) || (file !== undefined && hasOutput)) {
    throw new MeshError('usage', 'name a file with -f, or one directory with --directory and its options', {
      fix: 'write several directories into a FilesConfiguration: see docs/nginx.md',
    });
  }
  if (file !== undefined) return readFilesConfiguration(file, session.texts);
  if (combined !== undefined && !fileName.test(combined)) {
    throw new MeshError('usage', `--combined ${quote(combined)} is no file name`, {
      fix: 'use letters, digits, _, - and dots',
    });
  }
  const [program, ...args] = hook;
  const output: FilesOutput = {
    name: 'files',
    identity: spiffeId === undefined ? 'default' : SpiffeId.parseWorkload(spiffeId).text,
    directory: resolve(directory ?? ''),
    files: combined === undefined ? defaultFiles : [...defaultFiles, ['combined', combined]],
    ...accountsOf(
      owner ?? null,
      group ?? null,
      mode ?? null,
      (field, why, fix) => new MeshError('usage', `--${field} ${why}`, { fix }),
    ),
    hook: program === undefined ? null : { kind: 'run', argv: [program, ...args] },
    hookTimeoutSeconds: hookTimeoutBounds.default,
    onBan: 'remove',
  };
  return { outputs: [output], workloadSocket: null, metricsFile: null };
}

const watchMs = 1_000;
