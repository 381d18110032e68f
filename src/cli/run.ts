import { CommanderError } from 'commander';
import { MeshError } from '../errors.ts';
import { exitCodeOf, exitCodes, formatFailure, formatFailureJson } from './failure.ts';
import { createProgram } from './program.ts';
import type { Session } from './session.ts';

/** Runs one command line and sets the process's exit code; it ends the process only on a second signal. */
export async function runCommandLine(host: NodeJS.Process): Promise<void> {
  const session = openSession(host);
  try {
    checkNode(host.versions.node);
    await createProgram(session).parseAsync(host.argv);
    host.exitCode = session.exitCode;
  } catch (error) {
    host.exitCode = fail(session, host, error);
  }
}

/**
 * Refuses a Node under the floor of package.json: there SQLite's native part ends the process with a segmentation fault.
 * @throws MeshError `platform_unsupported`
 */
export function checkNode(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 18)) return;
  throw new MeshError('platform_unsupported', `this is Node ${version}, and 22.18 or newer is needed`, {
    fix: 'install Node 24; a checkout brings its own with bin/countersign',
  });
}

function openSession(host: NodeJS.Process): Session {
  host.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // `countersign audit list | head` is no failure: what nobody reads any more is not written.
    if (error.code === 'EPIPE') return;
    const lost = new MeshError(
      'file_permissions',
      `the answer cannot be written (${error.code ?? 'unknown'})`,
      {
        fix: 'make room where it goes, or send it elsewhere',
        cause: error,
      },
    );
    host.exit(fail(session, host, lost));
  });
  // A server that could not say that it stops would not stop in order.
  host.stderr.on('error', () => undefined);
  const session: Session = {
    environment: host.env,
    write: (text) => void host.stdout.write(text),
    say: (text) => void host.stderr.write(text),
    program: host.argv[1]?.endsWith('/src/cli/main.ts') === true ? 'bin/countersign' : 'countersign',
    isRoot: host.getuid?.() === 0,
    catchSignals: () => catchSignals(host),
    texts: new Map(),
    exitCode: exitCodes.ok,
  };
  return session;
}

function catchSignals(host: NodeJS.Process): AbortSignal {
  const stop = new AbortController();
  let firstAt = 0;
  const onSignal = () => {
    if (!stop.signal.aborted) {
      firstAt = performance.now();
      stop.abort();
      return;
    }
    // One Ctrl-C comes twice under npm: from the terminal, and passed on by npm.
    if (performance.now() - firstAt < sameSignalMs) return;
    // Whoever asks twice does not want to wait for the orderly end.
    host.exit(exitCodes.negative);
  };
  host.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return stop.signal;
}

const sameSignalMs = 500;

function fail(session: Session, host: NodeJS.Process, error: unknown): number {
  if (error instanceof CommanderError) {
    // Help that was asked for comes as an error with exit code 0; help for an incomplete line as `commander.help`.
    if (error.exitCode === 0) return exitCodes.ok;
    if (error.code === 'commander.help') return exitCodes.usage;
    return fail(session, host, usageError(error));
  }
  session.say(
    wantsJson(host.argv) ? formatFailureJson(error) : formatFailure(error, session.texts, host.stderr),
  );
  return exitCodeOf(error);
}

function usageError(error: CommanderError): MeshError {
  const lines = error.message.replace(/^error: /, '').split('\n');
  const hint = lines
    .slice(1)
    .join(' ')
    .replace(/^\(|\)$/g, '')
    .toLowerCase();
  return new MeshError('usage', lines[0] ?? 'wrong arguments', {
    fix: hint === '' ? 'see --help' : `${hint} see --help`,
    cause: error,
  });
}

// Read from the raw arguments, because a line that cannot be parsed must be reported too.
function wantsJson(argv: readonly string[]): boolean {
  return argv.some(
    (word, i) =>
      /^(?:-o=?|--output=)json$/.test(word) || (/^(?:-o|--output)$/.test(word) && argv[i + 1] === 'json'),
  );
}
