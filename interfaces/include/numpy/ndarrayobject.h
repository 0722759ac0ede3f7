// rosidl's generated code names this header for every list, and uses it only for fields that are arrays of numbers,
// which no message of this folder has.
#pragma once
