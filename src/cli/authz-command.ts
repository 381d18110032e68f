import { createReadStream, openSync, type ReadStream } from 'node:fs';
import { Command, Option } from 'commander';
import { type PolicyMode, policyModes } from '../authz/policy-mode.ts';
import type { Explanation } from '../authz/explain.ts';
import { formatExplanation } from '../authz/format-explanation.ts';
import { systemClock } from '../clock.ts';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import type { SourceFile } from '../identity/plan.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { parsePort } from './arguments.ts';
import { readContext } from './authz-context.ts';
import { exitCodes } from './failure.ts';
import { examples } from './help.ts';
import { globalOptions } from './global-options.ts';
import { explainCommand } from './explain-command.ts';
import { canReachCommand, whoCanCommand } from './reach-command.ts';
import { clientOf, print, readSources, type Session } from './session.ts';
import { printSuggestion } from './suggestion.ts';
import { printableJson, printableLines } from './text.ts';

type CheckOptions = {
  readonly from: string;
  readonly to: string;
  readonly method: string;
  readonly path: string;
  readonly host?: string;
  readonly port?: number;
  readonly header?: readonly string[];
  readonly sourceIp?: string;
  readonly remoteIp?: string;
  readonly sni?: string;
  readonly claims?: string;
  readonly file?: readonly string[];
  readonly candidate?: true;
  readonly suggestPolicy?: true;
  readonly mode?: PolicyMode;
};

/** `countersign authz check`: by the server, or by files alone. */
export function authzCommand(session: Session): Command {
  const group = new Command('authz')
    .description('ask the policy engine')
    .addHelpText('after', examples(...checkExamples));
  group
    .command('check')
    .description('say whether a call would be allowed, and why; exits 0 for allow and 1 for deny')
    .requiredOption('--from <id>', 'SPIFFE ID of the caller, or none for a caller without a certificate')
    .requiredOption('--to <id>', 'SPIFFE ID of the called service')
    .option('--method <method>', 'HTTP method', 'GET')
    .option('--path <path>', 'HTTP path', '/')
    .option('--host <host>', 'Host of the request, such as orders.shop:8080')
    .option('--port <port>', 'port of the called service', parsePort)
    .option(
      '--header <line...>',
      "a header of the request, such as 'x-team: red'; repeat it, or give none for 'not known'",
    )
    .option('--source-ip <address>', 'address of the peer of the connection')
    .option('--remote-ip <address>', 'address of the client behind trusted proxies')
    .option('--sni <name>', 'what TLS asked for')
    .option('--claims <file>', 'JSON of the claims of a verified token; none for a call without one')
    .option(
      '-f, --file <file...>',
      'judge by these files of entries and policies instead of asking the server',
    )
    .option('--candidate', 'judge by the candidate of the rollout, in place of what is in force')
    .option('--suggest-policy', 'print a policy that allows this very call, instead of the explanation')
    .addOption(
      new Option('--mode <mode>', 'how to read the policies of --file; policyMode when left out').choices(
        policyModes,
      ),
    )
    .addHelpText('after', examples(...checkExamples))
    .action(async (options: CheckOptions, command: Command) => {
      if (options.mode !== undefined && options.file === undefined) {
        throw new MeshError('usage', '--mode goes with --file: a server decides in its own mode', {
          fix: 'give files, or leave --mode out',
        });
      }
      if (options.candidate === true && options.file !== undefined) {
        throw new MeshError('usage', '--candidate is the one that the server has, and not in files', {
          fix: 'leave --file or --candidate out',
        });
      }
      const answer =
        options.file === undefined
          ? await clientOf(session, command).post<Explanation>('/v1/authz/check', questionOf(options))
          : await checkFiles(session, command, readSources(session, options.file), options);
      if (options.suggestPolicy === true) printSuggestion(session, answer);
      else print(session, command, answer, () => printableLines(formatExplanation(answer)));
      if (answer.verdict !== 'allow') session.exitCode = exitCodes.negative;
    });
  group
    .command('eval')
    .description('judge calls line by line, each by the policies it brings, as Istio does or strictly')
    .requiredOption('--batch <file>', 'JSON lines to judge; - is standard input (see docs/cli.md)')
    .addHelpText('after', examples('authz eval --batch calls.jsonl', 'authz eval --batch - < calls.jsonl'))
    .action(async ({ batch }: { readonly batch: string }) => {
      const { evaluateBatch } = await import('./authz-eval.ts');
      const stream = batch === '-' ? process.stdin : openBatch(batch);
      for await (const answer of evaluateBatch(stream, batch === '-' ? 'stdin' : batch, new Date())) {
        session.write(`${printableJson(answer, 0)}\n`);
      }
    });
  group.addCommand(explainCommand(session));
  group.addCommand(whoCanCommand(session));
  group.addCommand(canReachCommand(session));
  return group;
}

function openBatch(file: string): ReadStream {
  try {
    return createReadStream('', { fd: openSync(file, 'r') });
  } catch (cause) {
    throw new MeshError('input_unreadable', `cannot read ${quote(file)}`, {
      cause,
      fix: 'check the path and its permissions',
    });
  }
}

const checkExamples = [
  'authz check --from spiffe://mesh.internal/ns/shop/sa/web --to spiffe://mesh.internal/ns/shop/sa/orders --method GET --path /list',
  'authz check --from none --to spiffe://mesh.internal/ns/pay/sa/ledger --path / -f mesh.yaml',
  'authz check --from none --to spiffe://mesh.internal/ns/pay/sa/ledger -f mesh.yaml --mode istio',
];

function questionOf(options: CheckOptions) {
  const { from, to, method, path, host, port } = options;
  const context = readContext(options);
  return {
    source: from === 'none' ? null : from,
    destination: to,
    method,
    path,
    ...(options.candidate === true ? { candidate: true } : {}),
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port }),
    ...(Object.keys(context).length === 0 ? {} : { context }),
  };
}

/** Judges by files alone. The trust domain is the destination's; no server is asked. */
async function checkFiles(
  session: Session,
  command: Command,
  files: readonly SourceFile[],
  options: CheckOptions,
): Promise<Explanation> {
  const { from, to, method, path, host, port } = options;
  // Loaded here, so that commands which ask a server do not wait for the engine to load.
  const [{ explainCall }, { readCallContext }, { compileMesh }, { planApply }] = await Promise.all([
    import('../authz/judge.ts'),
    import('../http/call-context.ts'),
    import('../identity/current-mesh.ts'),
    import('../identity/plan.ts'),
  ]);
  const { output: _, config: file = null } = globalOptions(command);
  const destination = SpiffeId.parseWorkload(to);
  const { rootNamespace, leafTtlSeconds, policyMode } = loadConfig({
    flags: {},
    environment: session.environment,
    file,
    isRoot: session.isRoot,
  });
  const settings = {
    trustDomain: destination.trustDomain,
    rootNamespace,
    ttlSeconds: leafTtlSeconds,
    policyMode: options.mode ?? policyMode,
  };
  const nothing = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() };
  const plan = planApply(compileMesh(nothing, new Map(), settings), files, settings);
  const mesh = {
    revision: 1,
    entries: new Map(plan.putEntries.map((entry) => [entry.id, entry])),
    policies: new Map(plan.putPolicies.map(({ document }) => [document.key, document])),
    bans: new Map(),
  };
  const policies = new Map(plan.putPolicies.map(({ policy }) => [policy.key, policy]));
  const { snapshot } = compileMesh(mesh, policies, settings);
  if (plan.changes.length === 0) {
    throw new MeshError('usage', `no document is in ${files.map((one) => quote(one.file)).join(', ')}`, {
      fix: 'give files with entries and policies',
    });
  }
  const call = {
    source: from === 'none' ? null : SpiffeId.parseWorkload(from),
    destination,
    method,
    path,
    authority: host ?? null,
    port: port ?? 0,
    context: readCallContext(readContext(options)),
  };
  return explainCall(snapshot, call, systemClock.now());
}
