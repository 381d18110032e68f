import type { FastifyInstance } from 'fastify';
import { type PolicySuggestion, suggestPolicies } from '../identity/policy-suggest.ts';
import type { NoteRead } from './audit-routes.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';
import {
  demandReader,
  describeMeant,
  inTurn,
  meantBody,
  readMeant,
  type ReplayRoutePorts,
} from './replay-routes.ts';

/** Policies that recorded calls need. Nothing is applied. */
export function addSuggestRoutes(app: FastifyInstance, ports: ReplayRoutePorts, noteRead: NoteRead): void {
  addRoute(app, 'POST /v1/policy-suggestions', async (request, reply) => {
    const asked = parseInput(meantBody, request.body, 'body_invalid');
    demandReader(request);
    return inTurn(ports, request, reply, async (open) => {
      const meant = readMeant(asked, request, open.now());
      await noteRead(request, `suggestion of policies${describeMeant(asked)}`);
      return (await suggestPolicies(meant, open)) satisfies PolicySuggestion | undefined;
    });
  });
}
