// The part of Python's stable ABI that rosidl's generated message code calls, so that message packages build with
// g++ alone: Debian and Ubuntu ship Python without its headers. Names, signatures and layouts are those of the
// limited API, which holds from CPython 3.10 on (docs.python.org/3/c-api/stable.html). Macros that reach into objects
// in the full API are mapped to the functions that do the same.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

typedef ssize_t Py_ssize_t;
typedef struct _typeobject PyTypeObject;
typedef struct _object
{
  Py_ssize_t ob_refcnt;
  PyTypeObject * ob_type;
} PyObject;

// --- modules
typedef PyObject * (*PyCFunction)(PyObject *, PyObject *);
typedef struct PyMethodDef
{
  const char * ml_name;
  PyCFunction ml_meth;
  int ml_flags;
  const char * ml_doc;
} PyMethodDef;
typedef struct PyModuleDef_Base
{
  PyObject ob_base;
  PyObject * (*m_init)(void);
  Py_ssize_t m_index;
  PyObject * m_copy;
} PyModuleDef_Base;
typedef struct PyModuleDef
{
  PyModuleDef_Base m_base;
  const char * m_name;
  const char * m_doc;
  Py_ssize_t m_size;
  PyMethodDef * m_methods;
  void * m_slots;
  void * m_traverse;
  void * m_clear;
  void * m_free;
} PyModuleDef;
#define PyModuleDef_HEAD_INIT {{1, NULL}, NULL, 0, NULL}
#define PyMODINIT_FUNC __attribute__((visibility("default"))) PyObject *
#define PyModule_Create(definition) PyModule_Create2(definition, 3 /* PYTHON_ABI_VERSION */)
PyObject * PyModule_Create2(PyModuleDef *, int);
int PyModule_AddObject(PyObject *, const char *, PyObject *);
PyObject * PyImport_ImportModule(const char *);
PyObject * PyCapsule_New(void *, const char *, void (*)(PyObject *));

// --- objects
void Py_DecRef(PyObject *);
#define Py_DECREF(object) Py_DecRef((PyObject *)(object))
#define Py_XDECREF(object) Py_DecRef((PyObject *)(object))  // Py_DecRef accepts NULL
PyObject * PyObject_CallObject(PyObject *, PyObject *);
PyObject * PyObject_GetAttrString(PyObject *, const char *);
int PyObject_SetAttrString(PyObject *, const char *, PyObject *);
int PyType_IsSubtype(PyTypeObject *, PyTypeObject *);
extern PyObject * PyExc_RuntimeError;
void PyErr_SetString(PyObject *, const char *);

// --- numbers, text, sequences
extern PyTypeObject PyFloat_Type, PyLong_Type, PyUnicode_Type;
#define PyFloat_Check(object) PyType_IsSubtype(((PyObject *)(object))->ob_type, &PyFloat_Type)
#define PyFloat_AS_DOUBLE(object) PyFloat_AsDouble((PyObject *)(object))
double PyFloat_AsDouble(PyObject *);
PyObject * PyFloat_FromDouble(double);

#define PyLong_Check(object) PyType_IsSubtype(((PyObject *)(object))->ob_type, &PyLong_Type)
long PyLong_AsLong(PyObject *);
unsigned long PyLong_AsUnsignedLong(PyObject *);
PyObject * PyLong_FromLong(long);
PyObject * PyLong_FromUnsignedLong(unsigned long);

#define PyUnicode_Check(object) PyType_IsSubtype(((PyObject *)(object))->ob_type, &PyUnicode_Type)
#define PyUnicode_1BYTE_DATA(object) PyUnicode_AsUTF8AndSize((PyObject *)(object), NULL)
#define PyBytes_AS_STRING(object) PyBytes_AsString((PyObject *)(object))
const char * PyUnicode_AsUTF8AndSize(PyObject *, Py_ssize_t *);
PyObject * PyUnicode_AsUTF8String(PyObject *);
PyObject * PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *);
char * PyBytes_AsString(PyObject *);

extern PyTypeObject PyList_Type;
int PySequence_Check(PyObject *);
Py_ssize_t PySequence_Size(PyObject *);
PyObject * PySequence_Fast(PyObject *, const char *);
PyObject * PyList_New(Py_ssize_t);
PyObject * PyList_GetItem(PyObject *, Py_ssize_t);
int PyList_SetItem(PyObject *, Py_ssize_t, PyObject *);
PyObject * PyTuple_GetItem(PyObject *, Py_ssize_t);
static inline PyObject * PySequence_Fast_GET_ITEM(PyObject * sequence, Py_ssize_t index)
{
  const bool is_list = PyType_IsSubtype(sequence->ob_type, &PyList_Type);
  return is_list ? PyList_GetItem(sequence, index) : PyTuple_GetItem(sequence, index);
}
