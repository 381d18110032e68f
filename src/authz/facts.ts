import { kubernetesNames, type TrustDomain } from '../spiffe/id.ts';
import type { AuthzRequest } from './decision.ts';

/** The attributes of a request that predicates read. Undefined means the request has no such attribute. */
export class Facts {
  /** The caller's ID without `spiffe://`. */
  readonly principal: string | undefined;
  readonly host: string | undefined;
  /** Null when the authority named no port. */
  readonly hostPort: number | null;
  readonly port: number | undefined;
  readonly method: string | undefined;
  readonly path: string | undefined;
  readonly protocol: 'http' | 'tcp';
  readonly #request: AuthzRequest;
  readonly #trustDomain: TrustDomain;
  #namespace: string | undefined | null = null;

  constructor(request: AuthzRequest, trustDomain: TrustDomain) {
    const http = request.protocol === 'http';
    this.#request = request;
    this.#trustDomain = trustDomain;
    this.protocol = request.protocol;
    this.principal = request.source?.text.slice(schemeLength);
    this.host = http && request.host !== '' ? request.host : undefined;
    this.hostPort = request.hostPort;
    this.port = request.port === 0 ? undefined : request.port;
    this.method = http && request.method !== '' ? request.method : undefined;
    this.path = http && request.path !== '' ? request.path : undefined;
  }

  /**
   * The caller's namespace. Only an ID of our own trust domain and of the shape `/ns/<namespace>/sa/<account>` has one: a
   * foreign authority could sign any namespace's name.
   */
  get namespace(): string | undefined {
    if (this.#namespace === null) {
      const { source } = this.#request;
      const own = source !== null && source.memberOf(this.#trustDomain);
      this.#namespace = own ? kubernetesNames(source)?.namespace : undefined;
    }
    return this.#namespace;
  }
}

const schemeLength = 'spiffe://'.length;
