import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { comparePolicies, type Comparison } from '../authz/analysis/compare.ts';
import { type Proof, provePolicies } from '../authz/analysis/prove.ts';
import type { Policy } from '../authz/policy.ts';
import type { Snapshot } from '../authz/snapshot.ts';
import type { Steps } from '../authz/steps.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import {
  type Analysed,
  inTime,
  onTop,
  readAnalysed,
  readStored,
  relabelled,
  workloadsOf,
} from '../identity/policy-analysis.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { callerOf } from './caller.ts';
import { applyBody, type EntryPorts } from './entry-routes.ts';
import { parseInput } from './input.ts';
import type { LintPorts } from './lint-routes.ts';
import { demandNamespace } from './permit.ts';
import { findRevision, type RevisionArchive } from './revision-routes.ts';
import { addRoute } from './route.ts';

/** What proofs and comparisons need of the house. */
export type ProofPorts = Pick<EntryPorts, 'administration'> &
  Pick<LintPorts, 'policySet'> & {
    readonly survey: <T>(question: (snapshot: Snapshot, now: Date) => Steps<T>) => Promise<T>;
    readonly revisions: RevisionArchive;
    readonly clock: Clock;
  };

/** A proof as JSON: of which policies, by the number of a revision. */
export type ProofView = Proof & { readonly revision: number | null };

/** A comparison as JSON; null for policies of files. */
export type ComparisonView = Comparison & { readonly from: number | null; readonly to: number | null };

/** What is proven of policies, and what two sets of them decide differently. */
export function addProofRoutes(app: FastifyInstance, ports: ProofPorts, trustDomain: TrustDomain): void {
  const { administration, policySet, survey, revisions, clock } = ports;
  let running = 0;
  const analyse = async <T>(work: (snapshot: Snapshot, now: Date) => Steps<T>): Promise<T> => {
    if (running >= maxRunning) {
      throw new MeshError('server_busy', `${maxRunning} analyses of policies are under way`, {
        fix: 'try again in a while',
      });
    }
    running += 1;
    try {
      const deadline = clock.now().getTime() + longestMs;
      return await survey((snapshot, now) =>
        inTime(work(snapshot, now), () => clock.now().getTime() < deadline),
      );
    } finally {
      running -= 1;
    }
  };
  const activeNumber = (): number | null => administration.current().policyRevision?.number ?? null;
  const inForce = (): Analysed => ({
    policies: new Map([...policySet().policies].map((policy) => [policy.key, policy])),
    workloads: workloadsOf(administration.current().entries.values()),
    invariants: [],
  });
  const documentsOf = async (number: number): Promise<readonly PolicyDocument[]> => {
    await findRevision(revisions, number);
    const namespaces = [...(await revisions.policiesOf(number)).keys()].map(
      (key) => key.split('/', 1)[0] ?? '',
    );
    return revisions.policiesIn(number, [...new Set(namespaces)]);
  };
  const ofSide = async (
    side: Side,
  ): Promise<{ readonly number: number | null; readonly read: () => Steps<Analysed> }> => {
    const now = inForce();
    if ('files' in side) {
      return {
        number: null,
        *read() {
          const files = yield* readAnalysed(side.files);
          // Whoever lost their input must not be told that nothing changes.
          if (files.policies.size + files.workloads.size === 0) throw emptySide();
          return onTop(now, files);
        },
      };
    }
    // A literal `active` is whatever is in force as the question is put.
    if (side.revision === 'active') {
      return {
        number: activeNumber(),
        // oxlint-disable-next-line require-yield
        *read() {
          return now;
        },
      };
    }
    const documents = await documentsOf(side.revision);
    return {
      number: side.revision,
      *read() {
        return { ...now, policies: yield* readStored(documents, now.policies) };
      },
    };
  };
  const groundOf = (snapshot: Snapshot, { workloads }: Analysed) => ({
    trustDomain,
    rootNamespace: policySet().rootNamespace,
    workloads: [...workloads.values()],
    mode: snapshot.mode,
  });
  addRoute(app, 'POST /v1/policy-proofs', async (request) => {
    demandAll(request);
    const {
      files = [],
      revision = 'active',
      examine = true,
    } = parseInput(proofBody, request.body, 'body_invalid');
    const side = await ofSide({ revision });
    const proof = await analyse(function* (snapshot, now) {
      const asked = onTop(yield* side.read(), yield* readAnalysed(files));
      const question = { policies: listOf(asked), invariants: asked.invariants, examines: examine };
      return yield* provePolicies(groundOf(snapshot, asked), question, now);
    });
    return { ...proof, revision: side.number } satisfies ProofView;
  });
  addRoute(app, 'POST /v1/policy-comparisons', async (request) => {
    demandAll(request);
    const { from, to } = parseInput(comparisonBody, request.body, 'body_invalid');
    const [before, after] = [await ofSide(from), await ofSide(to)];
    const comparison = await analyse(function* (snapshot, now) {
      const [was, is] = [yield* before.read(), yield* after.read()];
      const ground = groundOf(snapshot, onTop(was, is));
      const compared = yield* comparePolicies(ground, listOf(was), listOf(is), now);
      return { ...compared, unproven: [...relabelled(was, is), ...compared.unproven] };
    });
    return { ...comparison, from: before.number, to: after.number } satisfies ComparisonView;
  });
}

function emptySide(): MeshError {
  return new MeshError('body_invalid', 'no policy and no entry is in the files of a side', {
    fix: 'give files with policies',
  });
}

/** What is proven of all policies is told to those who may see all of them, and everybody they apply to. */
function demandAll(request: FastifyRequest): void {
  const caller = callerOf(request);
  demandNamespace(caller, 'policies:read', undefined, 'an analysis of all policies');
  demandNamespace(caller, 'entries:read', undefined, 'an analysis of all policies');
}

function listOf({ policies }: Analysed): readonly Policy[] {
  return [...policies.values()];
}

const maxRunning = 2;
const longestMs = 60_000;

const revision = z.union([z.number().int().min(1).max(999_999_999_999_999), z.literal('active')]);
/** The body of `POST /v1/policy-proofs`: files are put on top of the policies of the revision. */
export const proofBody = z.strictObject({
  files: applyBody.shape.files.optional(),
  revision: revision.optional(),
  /** Whether rules are looked at one by one, beside what invariants say. */
  examine: z.boolean().optional(),
});
const sideBody = z.union([z.strictObject({ revision }), z.strictObject({ files: applyBody.shape.files })]);
type Side = z.output<typeof sideBody>;
/** The body of `POST /v1/policy-comparisons`: files are put on top of the policies in force. */
export const comparisonBody = z.strictObject({ from: sideBody, to: sideBody });
