import { open } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { boundedGet } from './bounded-get.ts';
import { createPodListReader, type PodList } from './pod-list.ts';

/** Where the kubelet of this node answers, and how we show who we are. */
export type KubeletOptions = {
  /** `https://host:10250`; `http://` for the read-only port, on a loopback address only. */
  readonly url: URL;
  /** A service account token. Not sent over http. */
  readonly tokenFile: string;
  /** The CAs, PEM, one of which must have signed the kubelet's certificate. */
  readonly caFile: string;
  readonly timeoutMs?: number;
  readonly maxBytes?: number;
};

/** @throws Error that says why there is no list */
export type FetchPods = (signal: AbortSignal) => Promise<PodList>;

/**
 * Asks the kubelet for the pods of this node. Both files are read anew for each question, as they are rotated.
 *
 * On a loopback address the kubelet's certificate is checked for its CA and for being a server's, and not for its name:
 * it bears the name of the node.
 */
export function createKubelet(options: KubeletOptions): FetchPods {
  const { url, timeoutMs = 5_000, maxBytes = 8_388_608 } = options;
  return async (signal) => {
    const tls = url.protocol === 'https:';
    const reader = createPodListReader();
    const status = await boundedGet({
      options: { ...target(url), ...(tls ? await credentials(options) : {}) },
      tls,
      maxBytes,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      onData: reader.push,
    });
    if (status === 401 || status === 403) {
      throw new Error(`the kubelet refused: ${status}; the service account needs get on nodes/proxy`);
    }
    if (status !== 200) throw new Error(`the kubelet answered ${status}`);
    reader.end();
    return reader.list();
  };
}

function target(url: URL): RequestOptions {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return {
    host,
    // A URL leaves out the usual port of its protocol.
    port: url.port === '' ? undefined : Number(url.port),
    path: '/pods',
    headers: { accept: 'application/json' },
  };
}

async function credentials({ url, tokenFile, caFile }: KubeletOptions): Promise<RequestOptions> {
  const [token, ca] = await Promise.all([readText(tokenFile), readText(caFile)]);
  // What is no token must not break out of the header.
  if (!/^[A-Za-z0-9._~+/=-]+$/.test(token.trim())) throw new Error('the token file holds no token');
  return {
    ca,
    minVersion: 'TLSv1.2',
    rejectUnauthorized: true,
    headers: { accept: 'application/json', authorization: `Bearer ${token.trim()}` },
    ...(isLoopback(url) ? { checkServerIdentity: () => undefined } : {}),
  };
}

async function readText(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    if (size > maxFileBytes) throw new Error(`${path} has more than ${maxFileBytes} bytes`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/** Whether a URL leads to this machine, whatever a name server says. */
export function isLoopback({ hostname }: URL): boolean {
  return hostname === '[::1]' || /^127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$/.test(hostname);
}

const maxFileBytes = 1_048_576;
