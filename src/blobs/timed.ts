import type { Metrics } from '../metrics.ts'
import type { BlobStore } from './store.ts'

const operations = ['put', 'putStream', 'link', 'read', 'open', 'size', 'delete', 'ping'] as const

/** The same store, with every call's duration and outcome in the metrics. */
export function timed(store: BlobStore, metrics: Metrics): BlobStore {
  const watched: BlobStore = Object.create(store)
  for (const operation of operations) {
    const ok = metrics.blobs.labels(operation, 'ok')
    const failed = metrics.blobs.labels(operation, 'failed')
    const call = store[operation].bind(store) as (...args: unknown[]) => Promise<unknown>
    const observed = async (...args: unknown[]) => {
      const started = performance.now()
      try {
        const result = await call(...args)
        ok.observe((performance.now() - started) / 1000)
        return result
      } catch (error) {
        failed.observe((performance.now() - started) / 1000)
        throw error
      }
    }
    Object.assign(watched, { [operation]: observed })
  }
  return watched
}
