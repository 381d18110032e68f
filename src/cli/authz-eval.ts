import { z } from 'zod';
import type { CallContext } from '../authz/context.ts';
import { decide } from '../authz/decide.ts';
import type { PolicyDocument } from '../authz/document.ts';
import { headerLinesOf } from '../authz/header-alias.ts';
import { decideAsIstio, type IstioVerdict } from '../authz/istio.ts';
import type { ProxyRequest } from '../authz/istio-request.ts';
import { pathNormalizations } from '../authz/normalized-path.ts';
import { parsePolicy, policyApiVersions, policyKind } from '../authz/parse.ts';
import { readPolicyDocument } from '../authz/read-document.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../authz/request.ts';
import { compileSnapshot } from '../authz/snapshot.ts';
import { MeshError, publicError, quote } from '../errors.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { readDocuments, type YamlDocument } from '../yaml.ts';
import { documentOfJson } from '../yaml-json.ts';
import { readJsonLines } from './json-lines.ts';
import { readPolicyFile } from './policy-file.ts';

/** The longest line read, newline not counted. */
export const maxLineBytes = 2_097_152;

/** One line of the answer. */
export type EvalAnswer = {
  /** As it was given, or null when it was not. */
  readonly id: string | number | null;
  /** False when the line could not be judged. */
  readonly allow: boolean;
} & Pick<IstioVerdict, 'rule' | 'shadow' | 'custom' | 'why'> & {
    /** The code of what is wrong with the line; null when it was judged. */
    readonly error: string | null;
  };

/**
 * Judges calls line by line, in order, each with its own policies. A line that cannot be judged is answered too, and is
 * no allow.
 * @param file what places in errors name
 * @param now the time of calls that say none
 */
export async function* evaluateBatch(
  stream: AsyncIterable<Buffer>,
  file: string,
  now: Date,
): AsyncGenerator<EvalAnswer> {
  const files = new Map<string, readonly YamlDocument[]>();
  let line = 0;
  for await (const bytes of readJsonLines(stream, maxLineBytes)) {
    line += 1;
    yield answerLine(bytes, { file, line }, files, now);
  }
}

type Place = { readonly file: string; readonly line: number };

function answerLine(
  bytes: Buffer | null,
  place: Place,
  files: Map<string, readonly YamlDocument[]>,
  now: Date,
): EvalAnswer {
  let id: EvalAnswer['id'] = null;
  try {
    if (bytes === null) {
      throw new MeshError('input_too_large', `the line is longer than ${maxLineBytes} bytes`);
    }
    const value = readJson(bytes);
    id = idOf(value);
    const question = readQuestion(value);
    const documents = documentsOf(question, place, files);
    const verdict =
      question.mode === 'istio' ? judgeAsIstio(question, documents) : judgeStrictly(question, documents, now);
    return { id, ...verdict, error: null };
  } catch (error) {
    // One line must never end the others, not even by a mistake of ours.
    const { code, message } = publicError(error);
    const nothing = { rule: null, shadow: { allow: null, deny: null }, custom: null };
    return { id, allow: false, ...nothing, why: message, error: code };
  }
}

const text = z.string().max(65_536);
const address = z.string().max(64).nullable().optional();
const questionShape = z.strictObject({
  id: z.union([z.string(), z.number()]).optional(),
  mode: z.enum(['istio', 'strict']).default('strict'),
  mesh: z
    .strictObject({
      trustDomains: z.array(text).min(1).optional(),
      rootNamespace: text.optional(),
      pathNormalization: z.enum(pathNormalizations).optional(),
    })
    .default({}),
  workload: z.strictObject({ namespace: text, labels: z.record(z.string(), text).default({}) }),
  policies: z.array(z.unknown()).optional(),
  policiesFile: text.optional(),
  request: z.strictObject({
    protocol: z.enum(['http', 'http2', 'grpc', 'tcp']).default('http'),
    principal: text.nullable().optional(),
    principals: z.array(text).optional(),
    method: text.nullable().optional(),
    path: text.nullable().optional(),
    host: text.nullable().optional(),
    headers: z
      .union([z.array(z.tuple([text, text])), z.record(z.string(), z.union([text, z.array(text)]))])
      .optional(),
    sourceIp: address,
    remoteIp: address,
    destinationIp: address,
    destinationPort: z.number().int().min(0).max(65_535).nullable().optional(),
    sni: text.nullable().optional(),
    jwt: z.record(z.string(), z.unknown()).nullable().optional(),
    metadata: z.record(z.string(), z.record(z.string(), z.unknown())).nullable().optional(),
    at: z.iso.datetime({ offset: true }).optional(),
  }),
});
type Question = z.infer<typeof questionShape>;

function readJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new MeshError('input_unreadable', 'the line is not JSON in UTF-8', { cause });
  }
}

function idOf(value: unknown): EvalAnswer['id'] {
  if (typeof value !== 'object' || value === null || !('id' in value)) return null;
  return typeof value.id === 'string' || typeof value.id === 'number' ? value.id : null;
}

function readQuestion(value: unknown): Question {
  const read = questionShape.safeParse(value);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  const where = issue?.path.map(String).join('.') ?? '';
  throw new MeshError(
    'input_unreadable',
    `${where === '' ? 'the line' : where}: ${issue?.message.toLowerCase() ?? 'is not as it should be'}`,
  );
}

function documentsOf(
  { policies, policiesFile }: Question,
  place: Place,
  files: Map<string, readonly YamlDocument[]>,
): readonly YamlDocument[] {
  if ((policies === undefined) === (policiesFile === undefined)) {
    throw new MeshError('input_unreadable', 'the line has not exactly one of policies and policiesFile');
  }
  const documents =
    policiesFile === undefined
      ? (policies ?? []).map((policy) => documentOfJson(policy, place))
      : documentsOfFile(policiesFile, files);
  // Other kinds are of no matter here, so that whole manifests can be given.
  return documents.filter(({ kind, apiVersion }) => {
    if (kind !== policyKind || !apiVersion.startsWith('security.istio.io/')) return false;
    const versions: readonly string[] = policyApiVersions;
    if (versions.includes(apiVersion)) return true;
    throw new MeshError('document_kind_unknown', `${quote(apiVersion)} is no version of ${policyKind}`);
  });
}

function documentsOfFile(file: string, files: Map<string, readonly YamlDocument[]>): readonly YamlDocument[] {
  const known = files.get(file);
  if (known !== undefined) return known;
  const documents = readDocuments({ file, text: readPolicyFile(file) });
  files.set(file, documents);
  return documents;
}

function judgeAsIstio(
  { mesh, workload, request }: Question,
  documents: readonly YamlDocument[],
): Omit<IstioVerdict, 'audited'> {
  const policies = documents.map((document): PolicyDocument => readPolicyDocument(document));
  const keys = policies.map(({ namespace, name }) => `${namespace}/${name}`);
  const twice = keys.find((key, index) => keys.indexOf(key) !== index);
  if (twice !== undefined) throw new MeshError('policy_invalid', `two policies are called ${quote(twice)}`);
  const { audited: _, ...verdict } = decideAsIstio(
    {
      trustDomains: mesh.trustDomains ?? ['cluster.local'],
      rootNamespace: mesh.rootNamespace ?? 'istio-system',
      pathNormalization: mesh.pathNormalization ?? 'BASE',
    },
    { namespace: workload.namespace, labels: new Map(Object.entries(workload.labels)) },
    policies,
    proxyRequest(request),
  );
  return verdict;
}

function proxyRequest(request: Question['request']): ProxyRequest {
  const { headers = [], metadata, jwt, sourceIp = null } = request;
  const lines = Array.isArray(headers)
    ? headers
    : Object.entries(headers).flatMap(([name, values]) =>
        [values].flat().map((value) => [name, value] as const),
      );
  return {
    protocol: request.protocol === 'tcp' ? 'tcp' : 'http',
    peerNames: peerNamesOf(request),
    method: request.method ?? null,
    path: request.path ?? null,
    host: request.host ?? null,
    headers: lines.map(([name, value]) => [name.toLowerCase(), value] as const),
    sourceIp,
    remoteIp: request.remoteIp ?? sourceIp,
    destinationIp: request.destinationIp ?? null,
    destinationPort: request.destinationPort ?? null,
    sni: request.sni ?? '',
    claims: jwt === null || jwt === undefined ? null : new Map(Object.entries(jwt)),
    metadata: new Map(
      Object.entries(metadata ?? {}).map(([filter, keys]) => [filter, new Map(Object.entries(keys))]),
    ),
  };
}

/** A name with a slash is a SPIFFE ID, with its scheme or, as policies write it, without; one without is a DNS name. */
function peerNamesOf({ principal, principals }: Question['request']): readonly string[] {
  const names = principals ?? (principal === null || principal === undefined ? [] : [principal]);
  const uris = names.map((name) => (!name.includes('://') && name.includes('/') ? `spiffe://${name}` : name));
  return [...uris.filter((name) => name.includes('://')), ...uris.filter((name) => !name.includes('://'))];
}

function judgeStrictly(
  { mesh, workload, request }: Question,
  documents: readonly YamlDocument[],
  now: Date,
): Omit<IstioVerdict, 'audited'> {
  const trustDomain = TrustDomain.parse(mesh.trustDomains?.[0] ?? 'cluster.local');
  const destination = SpiffeId.parseWorkload(
    `spiffe://${trustDomain.name}/ns/${workload.namespace}/sa/workload`,
  );
  const nothing = { rule: null, shadow: { allow: null, deny: null }, custom: null } as const;
  const names = peerNamesOf(request);
  if (names.length > 1) return { allow: false, ...nothing, why: 'the certificate has more than one name' };
  const source = names[0] === undefined ? null : SpiffeId.parseWorkload(names[0]);
  const snapshot = compileSnapshot({
    revision: 0,
    trustDomain,
    rootNamespace: mesh.rootNamespace ?? 'istio-system',
    policies: documents.map((document) => parsePolicy(document)),
    workloads: [{ id: destination, labels: workload.labels }],
    providersAnswer: true,
  });
  const port = request.destinationPort ?? 0;
  const context = contextOf(proxyRequest(request));
  const read =
    request.protocol === 'tcp'
      ? canonicalizeTcp({ source, destination, port, context })
      : canonicalizeHttp({
          source,
          destination,
          method: request.method ?? '',
          path: request.path ?? '',
          authority: request.host ?? '',
          port,
          context,
        });
  if (isRejection(read)) return { allow: false, ...nothing, why: read.why };
  const { verdict, rule, why, custom, shadow } = decide(snapshot, read, timeOf(request.at) ?? now);
  return {
    allow: verdict === 'allow',
    rule: rule === '' ? null : istioName(rule),
    shadow: shadow ?? nothing.shadow,
    custom,
    why,
  };
}

function timeOf(at: string | undefined): Date | undefined {
  return at === undefined ? undefined : new Date(at);
}

/** A line says all there is to know of a call: what it leaves out, the call does not have. Addresses may be unknown. */
function contextOf({
  headers,
  sourceIp,
  remoteIp,
  destinationIp,
  sni,
  claims,
  metadata,
}: ProxyRequest): CallContext {
  return {
    headerLines: headerLinesOf(headers),
    sourceIp: sourceIp ?? undefined,
    remoteIp: remoteIp ?? undefined,
    destinationIp: destinationIp ?? undefined,
    sni,
    claims,
    metadata,
  };
}

/** `shop/all rule[0]` as Istio names it. */
function istioName(rule: string): string {
  const match = /^([^/]+)\/(.+) rule\[([0-9]+)\]$/.exec(rule);
  return match === null ? rule : `ns[${match[1]}]-policy[${match[2]}]-rule[${match[3]}]`;
}
