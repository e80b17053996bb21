import { openMemoryStore } from './memory.ts'
import { testBlobStore } from './suite.ts'

testBlobStore(
  'memory',
  async () => {
    const store = openMemoryStore()
    const traces = async () => {
      const keys: string[] = []
      for await (const { key } of store.list('')) keys.push(key)
      return keys
    }
    return { store, again: async () => store, traces, remove: async () => {} }
  },
  { bounded: false },
)
