// __half is in the header of the emulation.
#pragma once
#include "cuda_runtime.h"
