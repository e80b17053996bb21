import type { Deps } from '../deps.ts'
import { requireAccess } from './access.ts'
import { partsOf, sharedFigures } from './figures.ts'
import type { Routes } from './routes.ts'

/** What the server knows and the app does not. */
export type ServerState = {
  /** The server is finishing what it has and takes nothing new. */
  isDraining(): boolean
  /** Aborts when that begins: answers that would go on for ever end. */
  drain?: AbortSignal
  /** The metrics of every process of this server, as Prometheus reads them; undefined: this process is all of it. */
  allMetrics?: () => Promise<string>
}

export function addOpsRoutes(routes: Routes, deps: Deps, state: ServerState): void {
  // Liveness: the process answers. It says nothing of what stands behind it, or an outage there would restart us.
  routes.get('/healthz', () => Response.json({ status: 'ok' }))

  // Readiness: each part by name.
  routes.get('/readyz', async () => {
    const parts = { ...(await partsOf(deps)), server: state.isDraining() ? 'draining' : 'ok' }
    const ready = Object.values(parts).every((part) => part === 'ok')
    return Response.json(
      { status: ready ? 'ok' : 'unavailable', parts },
      ready ? { status: 200 } : { status: 503, headers: { 'retry-after': '1' } },
    )
  })

  routes.get('/metrics', async (c) => {
    requireAccess(c, '*', 'pull')
    const { register } = deps.metrics
    const [own, shared] = await Promise.all([state.allMetrics?.() ?? register.metrics(), sharedFigures(deps)])
    return new Response(`${own}\n${shared}`, { headers: { 'content-type': register.contentType } })
  })
}
