import type { ServerUnaryCall, UntypedHandleCall } from '@grpc/grpc-js';
import type { PeerCall } from './connections.ts';
import type { GrpcService } from './listener.ts';
import { grpcFailure } from './status.ts';

/**
 * A service of which each call is let in before its handler hears of it.
 * @param admit throws what the call fails with
 */
export function admitCalls(service: GrpcService, admit: (call: PeerCall) => void): GrpcService {
  const guarded = (handle: UntypedHandleCall, answersOnce: boolean): UntypedHandleCall => {
    // grpc-js calls every kind of handler with the call first; those that answer once get a callback besides.
    const serve = handle as (call: Call, callback?: Callback) => void;
    return ((call: Call, callback?: Callback) => {
      try {
        admit(call);
      } catch (error) {
        if (answersOnce) callback?.(grpcFailure(error));
        else call.emit('error', grpcFailure(error));
        return;
      }
      serve(call, callback);
    }) as UntypedHandleCall;
  };
  const implementation = Object.fromEntries(
    Object.entries(service.implementation).map(([name, handle]) => [
      name,
      guarded(handle, service.definition[name]?.responseStream === false),
    ]),
  );
  return { ...service, implementation };
}

type Call = PeerCall & Pick<ServerUnaryCall<unknown, unknown>, 'emit'>;
type Callback = (failure: ReturnType<typeof grpcFailure>) => void;
