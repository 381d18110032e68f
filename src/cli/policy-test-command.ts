import { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import type { SourceFile } from '../identity/plan.ts';
import type { TestReport } from '../identity/policy-tests.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { exitCodes } from './failure.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { clientOf, print, readSources, type Session } from './session.ts';
import { count, formatTable, printable } from './text.ts';

type TestOptions = {
  readonly file: readonly string[];
  readonly inForce?: boolean;
  readonly trustDomain?: string;
  readonly requireCoverage?: boolean;
};

/** `countersign policy test`. */
export function policyTestCommand(session: Session): Command {
  return new Command('test')
    .description('run the tests of policies, and say which rules they show; exits 1 when one fails')
    .requiredOption('-f, --file <file...>', 'a file of documents, or - for standard input; may be repeated')
    .option('--in-force', 'together with what the server has in force; else the files stand alone')
    .option(
      '--trust-domain <name>',
      'that of the mesh, for files that stand alone (default: as configured, or the one that all tests name)',
    )
    .option('--require-coverage', 'exit 1 also when a rule is matched by no test')
    .addHelpText(
      'after',
      examples(
        'policy test -f shop.yaml --trust-domain example.org',
        'policy test -f shop.yaml --in-force --require-coverage',
        'policy test -f entries.yaml -f shop.yaml --trust-domain example.org -o json',
      ),
    )
    .action(async (options: TestOptions, command: Command) => {
      const files = readSources(session, options.file);
      const report =
        options.inForce === true
          ? await clientOf(session, command).post<TestReport>('/v1/policies/test', { files })
          : await testFiles(session, command, files, options.trustDomain);
      // A pipeline that lost its input must not look like one that worked.
      if (report.outcomes.length + report.coverage.length === 0) {
        const named = files.map((one) => quote(one.file)).join(', ');
        throw new MeshError('usage', `no policy with rules or tests is in ${named}`, {
          fix: 'give files with policies',
        });
      }
      const failed = report.outcomes.filter(({ passed }) => !passed).length;
      const uncovered = report.coverage.filter(({ matched }) => matched === 0).length;
      const ok = failed === 0 && (options.requireCoverage !== true || uncovered === 0);
      print(session, command, { ok, failed, uncovered, ...report }, () => formatReport(report));
      if (!ok) session.exitCode = exitCodes.negative;
    });
}

/** By files alone: no server is asked, and nobody is registered but by them. */
async function testFiles(
  session: Session,
  command: Command,
  files: readonly SourceFile[],
  trustDomain: string | undefined,
): Promise<TestReport> {
  // Loaded here, so that commands which ask a server do not wait for the engine to load.
  const [{ compileMesh }, { follow }, { planApply }, { reportTests }, { finish }] = await Promise.all([
    import('../identity/current-mesh.ts'),
    import('../identity/mesh-step.ts'),
    import('../identity/plan.ts'),
    import('../identity/policy-tests.ts'),
    import('../authz/steps.ts'),
  ]);
  const { config: file = null } = globalOptions(command);
  const config = loadConfig({ flags: {}, environment: session.environment, file, isRoot: session.isRoot });
  const named = trustDomain === undefined ? config.trustDomain : TrustDomain.parse(trustDomain);
  const ofMesh = named ?? (await soleTrustDomain(session, files));
  const settings = {
    trustDomain: ofMesh,
    rootNamespace: config.rootNamespace,
    policyMode: config.policyMode,
    ttlSeconds: config.leafTtlSeconds,
  };
  const nothing = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() };
  const empty = compileMesh(nothing, new Map(), settings);
  const plan = planApply(empty, files, settings);
  const keys = plan.changes.filter(({ kind }) => kind === 'policy').map(({ key }) => key);
  return finish(reportTests(follow(empty, plan, settings), keys, settings, new Date()));
}

/**
 * The one trust domain that all tests name. It is said, since it decides whose namespaces count.
 * @throws MeshError `usage` when there is none, or more than one; those of documents that cannot be read
 */
async function soleTrustDomain(session: Session, files: readonly SourceFile[]): Promise<TrustDomain> {
  const [{ parsePolicy, policyKind }, { readDocuments }] = await Promise.all([
    import('../authz/parse.ts'),
    import('../yaml.ts'),
  ]);
  const found = new Map<string, TrustDomain>();
  for (const document of files.flatMap((file) => readDocuments(file))) {
    if (document.kind !== policyKind) continue;
    for (const { call } of parsePolicy(document).tests) {
      for (const id of [call.source, call.destination]) {
        if (id !== null) found.set(id.trustDomain.name, id.trustDomain);
      }
    }
  }
  const [only, other] = found.values();
  if (only !== undefined && other === undefined) {
    session.say(`trust domain ${only.name}: the one that all tests name\n`);
    return only;
  }
  const why =
    only === undefined
      ? 'the tests name none'
      : `the tests name ${[...found.keys()].sort().map(quote).join(' and ')}`;
  throw new MeshError('usage', `the trust domain of the mesh is not known: ${why}`, {
    fix: 'name it with --trust-domain, or in the configuration',
  });
}

function formatReport({ outcomes, coverage }: TestReport): string {
  const failed = outcomes.filter(({ passed }) => !passed);
  const uncovered = coverage.filter(({ matched }) => matched === 0).length;
  const tests = formatTable(
    ['', 'POLICY', 'TEST', 'WANT', 'GOT'],
    outcomes.map(({ passed, policy, test, want, got, reason }) => [
      passed ? 'ok' : 'FAILED',
      policy,
      test,
      want,
      `${got} (${reason})`,
    ]),
  );
  const causes = failed.map(({ place, test, destination, why }) =>
    [`${place}: ${quote(test)} at ${destination === '' ? 'no workload' : destination}`, `    ${why}`]
      .map((line) => `${printable(line)}\n`)
      .join(''),
  );
  const rules = formatTable(
    ['RULE', 'MATCHED', 'NOT MATCHED', ''],
    coverage.map(({ rule, place, matched, notMatched }) => [
      rule,
      `${matched}`,
      `${notMatched}`,
      matched === 0 ? `no test matches it: ${place}` : notMatched === 0 ? 'every test matches it' : '',
    ]),
  );
  const summary = `${count(outcomes.length, 'test', 'tests')}, ${failed.length} failed; ${count(coverage.length, 'rule', 'rules')}, ${uncovered} matched by no test\n`;
  return [
    ...(outcomes.length === 0 ? [] : [tests, '\n']),
    ...causes,
    ...(causes.length === 0 ? [] : ['\n']),
    rules,
    '\n',
    summary,
  ].join('');
}
