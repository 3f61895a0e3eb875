"""Models as ONNX files. (A folder named onnx would hide the package.)"""
