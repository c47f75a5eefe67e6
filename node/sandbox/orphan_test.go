package sandbox

const helperVariable = "OSTRICH_SANDBOX_TEST_NODE"

func helperNode(string) int { return 0 }
