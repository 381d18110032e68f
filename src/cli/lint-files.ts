import type { Workload } from '../authz/attachment.ts';
import { differences } from '../authz/differences.ts';
import { type Finding, lintPolicies, type LintReport } from '../authz/lint.ts';
import { parsePolicy, policyKind } from '../authz/parse.ts';
import type { Policy } from '../authz/policy.ts';
import { readPolicyDocument } from '../authz/read-document.ts';
import { formatPlace, MeshError } from '../errors.ts';
import { entryKind, readEntryDocument } from '../identity/entry-document.ts';
import type { SourceFile } from '../identity/plan.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { readDocuments, type YamlDocument } from '../yaml.ts';

/** How files are looked at. */
export type LintFilesOptions = {
  readonly rootNamespace: string;
  /** That of the entries in the files when null. */
  readonly trustDomain: TrustDomain | null;
  readonly notes: boolean;
  readonly limit: number;
  /** Whether the entries in the files are all there are. */
  readonly compare: boolean;
};

/** What was found in files, and whether they have entries to compare with. */
export type FilesLint = LintReport & { readonly inventory: boolean; readonly policies: number };

/**
 * Looks at the policies of files, compared with the entries in them if there are any. A policy that strict mode refuses is
 * a finding, and the others are looked at all the same; documents of other kinds are passed over.
 * @throws MeshError `document_*` for what is no YAML, `spiffe_id_*` and others for entries that are none
 */
export function lintFiles(files: readonly SourceFile[], options: LintFilesOptions): FilesLint {
  const policies = new Map<string, Policy>();
  const workloads: Workload[] = [];
  const refused: Finding[] = [];
  for (const { file, text } of files) {
    for (const document of readDocuments({ file, text })) {
      if (document.kind === entryKind) workloads.push(readWorkload(document));
      if (document.kind !== policyKind) continue;
      const read = readPolicy(document);
      if ('code' in read) refused.push(read);
      else if (policies.has(read.key)) refused.push(twice(read, policies.get(read.key)));
      else policies.set(read.key, read);
    }
  }
  const hasInventory = options.compare && workloads.length > 0;
  const report = lintPolicies({
    policies: [...policies.values()],
    workloads: hasInventory ? workloads : null,
    trustDomain: options.trustDomain ?? workloads[0]?.id.trustDomain ?? null,
    rootNamespace: options.rootNamespace,
    notes: options.notes,
    limit: Math.max(1, options.limit - refused.length),
  });
  const shown = refused.slice(0, options.limit);
  return {
    ...report,
    findings: [...shown, ...report.findings].slice(0, options.limit),
    errors: report.errors + refused.length,
    omitted:
      report.omitted +
      refused.length -
      shown.length +
      Math.max(0, shown.length + report.findings.length - options.limit),
    inventory: hasInventory,
    policies: policies.size + refused.length,
  };
}

function readWorkload(document: YamlDocument): Workload {
  const { spiffeId, labels = {} } = readEntryDocument(document).input;
  return { id: SpiffeId.parseWorkload(spiffeId), labels };
}

function readPolicy(document: YamlDocument): Policy | Finding {
  try {
    return parsePolicy(document);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    const isIstio = isReadByIstio(document);
    return refusal(
      isIstio ? ofReader : 'refused',
      isIstio ? `${error.message}; Istio takes it, and reads something else in it` : error.message,
      error,
    );
  }
}

function twice({ key, place }: Policy, first: Policy | undefined): Finding {
  const at = first === undefined ? '' : `, at ${formatPlace(first.place)}`;
  return refusal(
    'refused',
    `there is another policy ${key}${at}`,
    new MeshError('policy_invalid', '', { place, fix: 'rename one of them' }),
  );
}

function refusal(code: string, why: string, { place, fix = '' }: MeshError): Finding {
  const where = place === undefined ? '' : formatPlace(place);
  return { code, severity: 'error', policy: '', why, fix, place: where, at: null };
}

function isReadByIstio(document: YamlDocument): boolean {
  try {
    readPolicyDocument(document);
    return true;
  } catch (error) {
    if (error instanceof MeshError) return false;
    throw error;
  }
}

/** What strict mode refuses as it reads, and Istio does not. */
const ofReader = differences.find(({ find }) => find === 'reader')?.code ?? 'refused';
