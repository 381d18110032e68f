import { Command, Option } from 'commander';
import type { HygieneFinding } from '../authz/analysis/hygiene.ts';
import type { InvariantResult, Proof } from '../authz/analysis/prove.ts';
import { MeshError } from '../errors.ts';
import type { ProofView } from '../http/proof-routes.ts';
import type { SourceFile } from '../identity/plan.ts';
import { analyseFiles, demandOwnNames, readTree } from './analysis-files.ts';
import { asText, decisionLine, indented, ruleLines, unprovenLines, witnessLines } from './analysis-text.ts';
import { exitCodes } from './failure.ts';
import { examples } from './help.ts';
import { parseRevision } from './policy-revision-commands.ts';
import { clientOf, print, type Session } from './session.ts';
import { count } from './text.ts';

type ProveOptions = {
  readonly file?: readonly string[];
  readonly invariants?: readonly string[];
  readonly candidate?: readonly string[];
  readonly revision?: number;
  readonly trustDomain?: string;
  readonly invariantsOnly?: boolean;
  readonly failOn: 'violation' | 'finding';
};

/** `countersign policy prove`. */
export function policyProveCommand(session: Session): Command {
  return new Command('prove')
    .description(
      'prove invariants of policies, and what is wrong with their rules; exits 1 when one is violated, 2 when one cannot be judged',
    )
    .option(
      '-f, --file <path...>',
      'files or directories of policies, entries and invariants, instead of a server',
    )
    .option('-i, --invariants <path...>', 'files or directories of invariants')
    .option('--candidate <path...>', 'policies to put on top of those in force, as apply would')
    .option('--revision <number>', 'the policies of a revision instead of those in force', parseRevision)
    .option(
      '--trust-domain <name>',
      'that of the mesh, for files alone (default: as configured, or that of the entries)',
    )
    .option('--invariants-only', 'do not look at rules one by one')
    .addOption(
      new Option('--fail-on <what>', 'what makes the exit code 1; a finding is a rule that does nothing')
        .choices(['violation', 'finding'])
        .default('violation'),
    )
    .addHelpText(
      'after',
      examples(
        'policy prove -i invariants.yaml',
        'policy prove -i invariants.yaml --candidate new.yaml',
        'policy prove -f policies/ -f invariants.yaml --trust-domain example.org --fail-on finding -o json',
      ),
    )
    .action(async (options: ProveOptions, command: Command) => {
      checkOptions(options);
      const proof =
        options.file === undefined
          ? await ask(session, command, options)
          : await work(session, command, options);
      const violated = proof.invariants.filter(({ result }) => result === 'violated').length;
      const unproven =
        proof.unproven.length + proof.invariants.filter(({ result }) => result === 'unproven').length;
      const idle = proof.findings.filter(({ code }) => code !== 'partly_denied').length;
      const ok = violated === 0 && unproven === 0 && (options.failOn === 'violation' || idle === 0);
      print(session, command, { ok, ...proof }, () => asText(formatProof(proof)));
      if (violated > 0 || (options.failOn === 'finding' && idle > 0)) session.exitCode = exitCodes.negative;
      else if (unproven > 0) session.exitCode = exitCodes.refused;
    });
}

function checkOptions({
  file,
  candidate,
  revision,
  trustDomain,
  invariants,
  invariantsOnly,
}: ProveOptions): void {
  const usage = (why: string, fix: string): MeshError => new MeshError('usage', why, { fix });
  if (file !== undefined && (candidate ?? revision) !== undefined) {
    throw usage('--file stands alone', 'leave out --candidate and --revision, or --file');
  }
  if (candidate !== undefined && revision !== undefined) {
    throw usage('--candidate is put on top of the policies in force', 'leave out --revision');
  }
  if (file === undefined && trustDomain !== undefined) {
    throw usage('--trust-domain is for files alone', 'leave it out: the server knows it');
  }
  if (invariantsOnly === true && (file ?? invariants) === undefined) {
    throw usage('there are no invariants to prove', 'name a file with --invariants');
  }
}

async function ask(
  session: Session,
  command: Command,
  { invariants = [], candidate = [], revision, invariantsOnly = false }: ProveOptions,
): Promise<ProofView> {
  const policies = readTree(session, candidate);
  if (policies.length > 0) await demandPolicies(policies);
  const files = [...readTree(session, invariants), ...policies];
  const proof = await clientOf(session, command).post<ProofView>('/v1/policy-proofs', {
    ...(files.length === 0 ? {} : { files }),
    ...(revision === undefined ? {} : { revision }),
    ...(invariantsOnly ? { examine: false } : {}),
  });
  demandInvariants(invariants.length > 0 || invariantsOnly, proof);
  return proof;
}

/** A pipeline that lost its candidate must not be told of the policies in force alone. */
async function demandPolicies(files: readonly SourceFile[]): Promise<void> {
  const [{ readAnalysed }, { finish }] = await Promise.all([
    import('../identity/policy-analysis.ts'),
    import('../authz/steps.ts'),
  ]);
  const { policies, workloads } = finish(readAnalysed(files));
  if (policies.size + workloads.size > 0) return;
  throw new MeshError('usage', 'no policy and no entry is in the files that --candidate names', {
    fix: 'give files with policies',
  });
}

async function work(
  session: Session,
  command: Command,
  { file = [], invariants = [], trustDomain, invariantsOnly = false }: ProveOptions,
): Promise<Proof> {
  const files = readTree(session, [...file, ...invariants]);
  const [{ provePolicies }, { finish }] = await Promise.all([
    import('../authz/analysis/prove.ts'),
    import('../authz/steps.ts'),
  ]);
  const { analysed, ground } = await analyseFiles(session, command, files, trustDomain);
  // A pipeline that lost its input must not look like one that worked.
  if (analysed.policies.size + analysed.invariants.length === 0) {
    throw new MeshError('usage', 'no policy and no invariant is in the files', {
      fix: 'give files with some',
    });
  }
  demandOwnNames([analysed], ground);
  const question = {
    policies: [...analysed.policies.values()],
    invariants: analysed.invariants,
    examines: !invariantsOnly,
  };
  const proof = finish(provePolicies(ground, question, new Date()));
  demandInvariants(invariants.length > 0 || invariantsOnly, proof);
  return proof;
}

function demandInvariants(isWanted: boolean, proof: Proof): void {
  if (!isWanted || proof.invariants.length > 0) return;
  throw new MeshError('usage', 'no invariant is in the files', {
    fix: 'write documents of the kind PolicyInvariant',
  });
}

function formatProof(proof: Proof): readonly string[] {
  const { invariants, findings, unproven, policies, destinations, madeUp } = proof;
  const results = invariants.flatMap(formatInvariant);
  const shown = findings.flatMap(formatFinding);
  const by = (result: InvariantResult['result']) => invariants.filter((one) => one.result === result).length;
  const made = madeUp.length === 0 ? '' : `, some of them made up: ${madeUp.join(', ')}`;
  return [
    ...results,
    ...shown,
    ...unprovenLines(unproven),
    `${count(policies, 'policy', 'policies')} at ${count(destinations, 'destination', 'destinations')}${made}`,
    `${count(invariants.length, 'invariant', 'invariants')}: ${by('proven')} proven, ${by('violated')} violated, ${by('unproven')} unproven; ${count(findings.length, 'finding', 'findings')}`,
  ];
}

function formatInvariant({
  name,
  place,
  demand,
  result,
  violations,
  why,
  registered,
}: InvariantResult): readonly string[] {
  // A name with a mistake in it is about nobody, and proven of a workload that was made up for it.
  const said = result === 'proven' && registered === 0 ? 'it is about nobody who is registered' : why;
  return [
    `${result.padEnd(8)}  ${demand} ${name}  ${place}${said === '' ? '' : `: ${said}`}`,
    ...violations.flatMap(({ rule, witness, decision }) => [
      ...indented(rule === null ? ['no rule allows it'] : ruleLines(rule)),
      ...indented(['for example', ...indented(witnessLines(witness), 2), decisionLine(decision)], 6),
    ]),
  ];
}

function formatFinding({
  code,
  policy,
  rule,
  place,
  by,
  witness,
  decision,
}: HygieneFinding): readonly string[] {
  const names = by.length === 0 ? '' : `: ${by.join(', ')}`;
  return [
    `${code}  ${rule?.rule ?? policy}  ${place}`,
    ...indented([`${meanings[code]}${code === 'never_matches' ? '' : names}`]),
    ...(witness === null ? [] : indented(witnessLines(witness))),
    ...(decision === null ? [] : indented([decisionLine(decision)])),
  ];
}

const meanings: Readonly<Record<HygieneFinding['code'], string>> = {
  never_matches: 'no call can match it',
  always_denied: 'whatever it allows is denied',
  redundant: 'without it every call is decided the same',
  applies_to_none: 'no registered workload is selected by it',
  partly_denied: 'some of what it allows is denied',
};
