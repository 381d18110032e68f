import { MeshError, type Place, quote } from '../errors.ts';
import { checkIssuer } from '../spiffe/jwt-issuer.ts';
import { readDocuments, type YamlText } from '../yaml.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';

/** A Kubernetes cluster whose nodes may come in by the service account token of a pod. */
export type KubernetesCluster = {
  /** What agents call it: a DNS label. Part of the names of its nodes. */
  readonly name: string;
  /** What a token must be made for; never what tokens for the API server are. */
  readonly audience: string;
  /** Whose tokens count: 1 to 64 of `namespace:name`. */
  readonly serviceAccounts: ReadonlySet<string>;
  readonly judge: TokenReviewJudge | OfflineJudge;
};

/** The API server is asked about every token, and knows whether its pod is still there. */
export type TokenReviewJudge = {
  readonly kind: 'token-review';
  readonly server: HttpsPlace;
  /** Labels of nodes that become selectors: 32 at most. */
  readonly nodeLabels: readonly string[];
};

/** Tokens are verified with published keys: nobody is asked, and a pod that has gone is not noticed. */
export type OfflineJudge = {
  readonly kind: 'offline';
  /** The `iss` that tokens must have. */
  readonly issuer: string;
  /** Where the keys are: a file, or a URL that they are fetched from. */
  readonly keys: { readonly file: string } | HttpsPlace;
};

/** Whom to ask over TLS. */
export type HttpsPlace = {
  readonly url: URL;
  /** PEM; null for the CAs that come with the program. Read anew for each question. */
  readonly caFile: string | null;
  /** Holds a bearer token; null to show none. Read anew for each question. */
  readonly tokenFile: string | null;
};

/** What a document must say of itself to be a cluster. */
export const clusterApiVersion = 'countersign.dev/v1';
export const clusterKind = 'KubernetesCluster';
export const maxClusters = 64;

/**
 * Reads the clusters of a file.
 * @throws MeshError with its place: what the readers of documents throw, and `document_field_value`
 */
export function readClusters(text: YamlText): ReadonlyMap<string, KubernetesCluster> {
  const clusters = new Map<string, KubernetesCluster>();
  for (const { apiVersion, kind, root } of readDocuments(text)) {
    if (apiVersion !== clusterApiVersion || kind !== clusterKind) {
      throw root.error(
        'document_kind_unknown',
        'is not a cluster',
        `begin it with apiVersion: ${clusterApiVersion} and kind: ${clusterKind}`,
      );
    }
    const fields = root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
    const nameNode = fields.required('metadata').mapping(['name']).required('name');
    const name = matching(
      nameNode,
      clusterName,
      'is not the name of a cluster',
      'use a DNS label, such as prod',
    );
    if (clusters.has(name)) throw value(nameNode, 'was already given', 'keep one of the two documents');
    if (clusters.size === maxClusters) throw value(root, `is one of more than ${maxClusters}`, 'remove some');
    clusters.set(name, readCluster(name, fields.required('spec')));
  }
  return clusters;
}

function readCluster(name: string, node: YamlNode): KubernetesCluster {
  const spec = node.mapping(['audience', 'serviceAccounts', 'tokenReview', 'offline']);
  const [review, offline] = [spec.optional('tokenReview'), spec.optional('offline')];
  if ((review === undefined) === (offline === undefined)) {
    throw value(node, 'has not one of tokenReview and offline', 'say how tokens are judged, in one way');
  }
  const audience = spec.required('audience');
  const judge = review === undefined ? readOffline(offline ?? node) : readTokenReview(review);
  return { name, audience: readAudience(audience, judge), serviceAccounts: readAccounts(spec), judge };
}

/** INVARIANT: what is sent here opens nothing else, whoever gets hold of it. */
function readAudience(node: YamlNode, judge: KubernetesCluster['judge']): string {
  const audience = matching(
    node,
    /^[\x21-\x7e]{1,256}$/,
    'is not an audience',
    'use a name, such as countersign',
  );
  const isServer =
    audience.startsWith('https://kubernetes.default') ||
    (judge.kind === 'offline' && audience === judge.issuer);
  if (isServer) {
    throw value(
      node,
      'is that of the API server',
      'choose a name of its own: such a token would open the cluster',
    );
  }
  return audience;
}

function readAccounts(spec: YamlMapping): ReadonlySet<string> {
  const node = spec.required('serviceAccounts');
  const items = node.sequence();
  if (items.length === 0 || items.length > maxAccounts) {
    throw value(node, `has ${items.length} items`, `name 1 to ${maxAccounts} service accounts`);
  }
  return new Set(
    items.map((item) =>
      matching(
        item,
        accountName,
        'is not a service account',
        'write namespace:name, such as countersign:agent',
      ),
    ),
  );
}

function readTokenReview(node: YamlNode): TokenReviewJudge {
  const spec = node.mapping(['url', 'caFile', 'tokenFile', 'nodeLabels']);
  const labels = spec.optional('nodeLabels')?.sequence() ?? [];
  if (labels.length > maxNodeLabels) {
    throw value(node, `names more than ${maxNodeLabels} labels`, 'keep those that aliases ask for');
  }
  return {
    kind: 'token-review',
    // The API server has a CA of its own, and answers nobody without a token.
    server: {
      url: readUrl(spec.required('url')),
      caFile: path(spec.required('caFile')),
      tokenFile: path(spec.required('tokenFile')),
    },
    nodeLabels: labels.map((item) =>
      matching(item, labelKey, 'is not the key of a label', 'write it as kubectl shows it'),
    ),
  };
}

function readOffline(node: YamlNode): OfflineJudge {
  const spec = node.mapping(['issuer', 'jwksFile', 'jwksUrl', 'caFile', 'tokenFile']);
  const issuer = spec.required('issuer');
  const [file, url] = [spec.optional('jwksFile'), spec.optional('jwksUrl')];
  if ((file === undefined) === (url === undefined)) {
    throw value(node, 'has not one of jwksFile and jwksUrl', 'say where the keys are, once');
  }
  const [caFile, tokenFile] = [spec.optional('caFile'), spec.optional('tokenFile')];
  if (file !== undefined && (caFile ?? tokenFile) !== undefined) {
    throw value(caFile ?? tokenFile ?? node, 'goes with jwksUrl', 'remove it');
  }
  return {
    kind: 'offline',
    issuer: at(issuer.place, () => checkIssuer(issuer.string())),
    keys:
      url === undefined
        ? { file: path(file ?? node) }
        : {
            url: readUrl(url),
            caFile: caFile === undefined ? null : path(caFile),
            tokenFile: tokenFile === undefined ? null : path(tokenFile),
          },
  };
}

function readUrl(node: YamlNode): URL {
  const text = node.string();
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain =
    url?.protocol === 'https:' &&
    url.username === '' &&
    url.password === '' &&
    url.search === '' &&
    url.hash === '';
  if (url !== undefined && isPlain) return url;
  throw value(node, `${quote(text)} is no plain https URL`, 'write it as https://10.0.0.1:6443');
}

function path(node: YamlNode): string {
  return matching(node, /^\/[^\0]{1,4095}$/, 'is not an absolute path', 'begin it with /');
}

function matching(node: YamlNode, pattern: RegExp, problem: string, fix: string): string {
  const text = node.string();
  if (pattern.test(text)) return text;
  throw value(node, `${quote(text)} ${problem}`, fix);
}

function value(node: YamlNode, message: string, fix: string): MeshError {
  return node.error('document_field_value', message, fix);
}

function at<T>(place: Place, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    throw new MeshError('document_field_value', error.message, {
      place,
      ...(error.fix === undefined ? {} : { fix: error.fix }),
    });
  }
}

const maxAccounts = 64;
const maxNodeLabels = 32;
const clusterName = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const accountName = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?:(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/;
const labelKey =
  /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
