package sandbox

const limitsData = true
