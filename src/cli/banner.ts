import type { Config } from '../config.ts'
import { version } from './version.ts'

/** What a person sees who starts the registry by hand: where it is, where the data is, and what to try first. */
export function banner(config: Config, { url, store }: { url: string; store: string }): string {
  const address = url.replace(/^https?:\/\//, '')
  const plain = config.tls ? '' : '--plain-http '
  const database = config.databaseUrl
    ? 'PostgreSQL at DATABASE_URL'
    : `embedded PostgreSQL in ${config.dataDir}/postgres`
  return `
  PacksRegistry ${version} is ready at ${url}

    database  ${database}
    blobs     ${store}
    try       oras push ${plain}${address}/hello/world:1.0.0 README.md
    look      curl ${url}/v2/_catalog
    stop      Ctrl-C

`
}
