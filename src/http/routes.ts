import type { HttpBindings } from '@hono/node-server'
import { type Context, Hono } from 'hono'
import type { Principal } from '../auth/access.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Gate } from './access.ts'

/** What a request carries beside itself: facts about it, for its handlers, the log and the metrics. */
export type RequestFacts = {
  /** Made when it is first needed; see `requestId`. */
  id?: string
  /** The path of the route that answered, as it is written in the code. */
  route?: string
  /** Set before a request reaches its route. */
  principal?: Principal
  gate?: Gate
  /** What it was about: the last that access was asked for, and the manifest or blob that was written. */
  repository?: RepositoryName | '*'
  digest?: string
  /** The tags that the client asked for beside the one in the path. */
  tags?: readonly string[]
  /** Why whoever asks means it, where they said so. */
  reason?: string | undefined
  /** Its handler only tries it out, and writes nothing. Said by the handler alone: a URL is read in more ways than one. */
  tries?: boolean
  /** The answer is that there is nothing, for it may not be read. */
  hidden?: boolean
  /** Why it failed, where it did. */
  error?: unknown
}

export type Env = { Bindings: HttpBindings & RequestFacts }
export type App = Hono<Env>
type Handler = (c: Context<Env>) => Response | Promise<Response>

export const methods = ['get', 'post', 'put', 'patch', 'delete'] as const
export type Routes = Record<(typeof methods)[number], (path: string, handler: Handler) => void>

export function newApp(): App {
  return new Hono<Env>()
}

/**
 * Adds routes to the app; each notes its path as a fact of the request. There is no middleware anywhere: a request
 * that matches exactly one handler takes the router's shortest way.
 */
export function routesOf(app: App): Routes {
  const add = (method: string) => (path: string, handler: Handler) => {
    app.on(method.toUpperCase(), path, (c) => {
      c.env.route = path
      return handler(c)
    })
  }
  return { get: add('get'), post: add('post'), put: add('put'), patch: add('patch'), delete: add('delete') }
}
